"""The attention loss: values worked out by hand, then properties, then a slow reference."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.losses import attention_loss


def everything(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


def test_identical_attention_gives_zero_loss():
    attention = torch.rand(3, 4, 5)
    loss = attention_loss(attention, attention, everything(3, 4), everything(3, 5))
    torch.testing.assert_close(loss, torch.tensor(0.0))


def test_loss_by_hand():
    # Teacher's row (ln 3, 0) is (3/4, 1/4) after the softmax, the student's (0, 0) is (1/2, 1/2).
    teacher, student = torch.tensor([[[math.log(3), 0.0]]]), torch.zeros(1, 1, 2)
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    loss = attention_loss(teacher, student, everything(1, 1), everything(1, 2))
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_shares_by_hand():
    # Shares of (0.03, 0.01) are (3/4, 1/4) and of (0.2, 0.2) (1/2, 1/2), whatever the sums; a row of zeros is even.
    teacher = torch.tensor([[[0.03, 0.01], [0.0, 0.0]]], dtype=torch.float64)
    student = torch.tensor([[[0.2, 0.2], [0.1, 0.1]]], dtype=torch.float64)
    expected = (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)) / 2
    loss = attention_loss(teacher, student, everything(1, 2), everything(1, 2), rows="share")
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), atol=1e-4, rtol=0)


def test_shares_do_not_depend_on_how_much_attention_critical_words_get():
    teacher, student = torch.rand(1, 2, 3) + 0.1, torch.rand(1, 2, 3) + 0.1
    masks = everything(1, 2), everything(1, 3)
    plain = attention_loss(teacher, student, *masks, rows="share")
    torch.testing.assert_close(
        attention_loss(teacher * 7, student / 3, *masks, rows="share"), plain, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("rows", ["softmax", "share"])
def test_words_without_any_attention_give_finite_losses_and_gradients(rows: str):
    teacher = torch.tensor([[[0.5, 0.0, 0.1], [0.0, 0.0, 0.0]]])
    student = torch.tensor([[[0.0, 0.0, 0.4], [0.0, 0.0, 0.0]]], requires_grad=True)
    loss = attention_loss(teacher, student, everything(1, 2), torch.tensor([[True, True, False]]), rows=rows)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss > 0 and loss.isfinite() and gradient.isfinite().all()
    assert gradient[..., 2].abs().sum() == 0, "no word of this record"


def test_steps_are_averaged_within_a_record_before_records_are():
    teacher = torch.zeros(2, 2, 2)
    teacher[0, 0] = torch.tensor([math.log(3), 0.0])
    one_step = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    steps = torch.tensor([[True, False], [True, True]])
    # Record 0 has the one step that differs: its mean is one_step. Record 1 has two that agree: 0.
    loss = attention_loss(teacher, torch.zeros(2, 2, 2), steps, everything(2, 2))
    torch.testing.assert_close(loss, torch.tensor(one_step / 2))


def test_a_constant_added_to_a_row_changes_nothing():
    teacher, student = torch.rand(1, 2, 3), torch.rand(1, 2, 3)
    masks = everything(1, 2), everything(1, 3)
    torch.testing.assert_close(attention_loss(teacher + 5, student, *masks), attention_loss(teacher, student, *masks))


def test_padding_changes_neither_loss_nor_gradient():
    torch.manual_seed(0)
    teacher, student = torch.rand(2, 3, 4), torch.rand(2, 3, 4, requires_grad=True)
    plain = attention_loss(teacher, student, everything(2, 3), everything(2, 4))
    (gradient,) = torch.autograd.grad(plain, student)
    pad = torch.nn.functional.pad
    wide = pad(student, (0, 3, 0, 2), value=9.0).detach().requires_grad_()
    masks = pad(everything(2, 3), (0, 2)), pad(everything(2, 4), (0, 3))
    padded = attention_loss(pad(teacher, (0, 3, 0, 2), value=4.0), wide, *masks)
    (wide_gradient,) = torch.autograd.grad(padded, wide)
    torch.testing.assert_close(padded, plain)
    torch.testing.assert_close(wide_gradient[:, :3, :4], gradient)
    assert wide_gradient[:, 3:].abs().sum() == 0


def test_a_record_without_words_or_steps_counts_zero():
    teacher, student = torch.rand(2, 1, 2), torch.rand(2, 1, 2)
    alone = attention_loss(teacher[:1], student[:1], everything(1, 1), everything(1, 2))
    for steps, words in [([[True], [False]], [[True, True]] * 2), ([[True], [True]], [[True, True], [False, False]])]:
        loss = attention_loss(teacher, student, torch.tensor(steps), torch.tensor(words))
        torch.testing.assert_close(loss, alone / 2)


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))
def test_equals_a_plain_loop_and_is_never_negative(seed: int, records: int, most_steps: int, most_words: int):
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.rand(records, most_steps, most_words, generator=generator) * 5
    student = torch.rand(records, most_steps, most_words, generator=generator) * 5
    steps = torch.randint(1, most_steps + 1, (records,), generator=generator)
    words = torch.randint(1, most_words + 1, (records,), generator=generator)
    total = 0.0
    for b in range(records):
        for s in range(steps[b]):
            p = [math.exp(x) for x in teacher[b, s, : words[b]].tolist()]
            q = [math.exp(x) for x in student[b, s, : words[b]].tolist()]
            terms = [x / sum(p) * math.log((x / sum(p)) / (y / sum(q))) for x, y in zip(p, q, strict=True)]
            total += sum(terms) / int(steps[b]) / records
    step_mask = torch.arange(most_steps)[None] < steps[:, None]
    word_mask = torch.arange(most_words)[None] < words[:, None]
    loss = attention_loss(teacher, student, step_mask, word_mask)
    torch.testing.assert_close(loss, torch.tensor(total), atol=1e-5, rtol=1e-4)
    assert loss > -1e-6
