"""Pieces of text between borders that two tokenizers share, and the loss over them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.attention.tokens import encode
from stages.soft_labels.pieces import Pieces, joined, pieces, target_ends
from stages.soft_labels.pieces import piece_loss as loss_of_pieces
from stages.soft_labels.pieces import wanted as wanted_of
from tests.fakes import tiny_tokenizer


def piece_loss(student: torch.Tensor, teacher: torch.Tensor, found: Pieces) -> torch.Tensor:
    """The loss of log-probabilities of both sides' tokens."""
    summed = torch.from_numpy(wanted_of(teacher.detach().double().numpy(), found))
    return loss_of_pieces(student, torch.from_numpy(found.of_student), summed)


def ends(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def log(*shares: float) -> torch.Tensor:
    return torch.tensor([math.log(share) for share in shares], dtype=torch.float64)


ENDS = st.lists(st.integers(1, 20), min_size=1, max_size=12).map(lambda found: ends(*sorted(found), 20))


# Pieces


def test_pieces_by_hand():
    # "The answer is 42.": The| answer| is| 42|. and The| ans|wer| is| 4|2.
    found = pieces(ends(3, 10, 13, 16, 17, 17), ends(3, 7, 10, 13, 15, 17, 17))
    assert found.of_teacher.tolist() == [0, 1, 2, 3, 3, 4]
    assert found.of_student.tolist() == [0, 1, 1, 2, 3, 3, 4]
    assert found.count == 5 and found.share == 5 / 7


def test_with_one_tokenizer_pieces_are_tokens():
    found = pieces(ends(3, 10, 13, 17, 17), ends(3, 10, 13, 17, 17))
    assert found.of_teacher.tolist() == found.of_student.tolist() == [0, 1, 2, 3, 4]
    assert found.share == 1


def test_the_end_token_is_a_piece_of_its_own():
    found = pieces(ends(9, 9), ends(2, 4, 9, 9))
    assert found.of_teacher.tolist() == [0, 1] and found.of_student.tolist() == [0, 0, 0, 1]


def test_tokens_of_one_character_are_never_parted():
    # "é1" as three bytes and as two characters.
    found = pieces(ends(1, 1, 2, 2), ends(1, 2, 2))
    assert found.of_teacher.tolist() == [0, 0, 1, 2] and found.of_student.tolist() == [0, 1, 2]
    assert pieces(ends(1, 2, 2), ends(1, 1, 2, 2)).share == 3 / 4


def test_what_one_side_has_behind_the_others_last_token_belongs_to_the_last_piece():
    found = pieces(ends(4, 7, 8), ends(4, 7, 8, 8))
    assert found.of_teacher.tolist() == [0, 1, 2] and found.of_student.tolist() == [0, 1, 1, 2]
    found = pieces(ends(4, 7, 8), ends(5, 8, 8))
    assert found.of_teacher.tolist() == [0, 0, 1] and found.of_student.tolist() == [0, 0, 1]


@given(ENDS, ENDS)
def test_every_piece_is_one_of_both_sides_in_order(teacher: np.ndarray, student: np.ndarray):
    found = pieces(teacher, student)
    sides = ((found.of_teacher, teacher), (found.of_student, student))
    for of_side, side in sides:
        assert (np.diff(of_side) >= 0).all() and set(of_side) == set(range(found.count))
        assert (np.diff(of_side)[np.diff(side) == 0][:-1] == 0).all(), "equal ends lie together, but for the end token"
    for piece in range(found.count - 2):
        borders = {int(side[of_side == piece].max()) for of_side, side in sides}
        assert len(borders) == 1, "both sides end a piece at the same character"
    same = pieces(teacher, teacher)
    assert same.count == len(set(teacher[:-1])) + 1


def test_pieces_of_several_rationales_stand_one_behind_the_other():
    found = joined([pieces(ends(2, 2), ends(1, 2, 2)), pieces(ends(3, 5, 5), ends(3, 5, 5))])
    assert found.of_teacher.tolist() == [0, 1, 2, 3, 4] and found.of_student.tolist() == [0, 0, 1, 2, 3, 4]
    assert found.count == 5 and found.share == 5 / 6


def test_ends_are_those_of_tokens_that_reach_beyond_the_prompt_by_hand():
    spans = np.array([[0, 0], [0, 2], [2, 4], [3, 6], [6, 7], [6, 7], [0, 0]])
    assert target_ends(spans, 4, 3).tolist() == [2, 3, 3, 3]
    assert target_ends(spans, 4, 5).tolist() == [2, 3, 3, 5]


def test_ends_of_a_real_tokenizer():
    _, spans = encode(tiny_tokenizer(adds_begin=True), "ab\né1")
    assert target_ends(spans, 3, 2).tolist() == [1, 1, 2, 2]


# The loss


def test_the_loss_by_hand():
    """A piece of one token, one of two of the student's and one of the teacher's, and the end token."""
    found = pieces(ends(3, 8, 8), ends(3, 5, 8, 8))
    student, teacher = log(0.5, 0.5, 0.4, 1.0), log(0.25, 0.1, 1.0)
    first, second = math.log(2) ** 2 / 2, (math.log(2) / 2) ** 2 / 2
    expected = torch.tensor([first, second, second, 0.0], dtype=torch.float64)
    torch.testing.assert_close(piece_loss(student, teacher, found), expected)


def test_beyond_a_nat_a_token_it_is_a_line_by_hand():
    found = pieces(ends(3, 3), ends(1, 3, 3))
    student, teacher = torch.tensor([-1.0, -1.0, 0.0]), torch.tensor([-20.0, 0.0])
    torch.testing.assert_close(piece_loss(student, teacher, found), torch.tensor([8.5, 8.5, 0.0]))


def test_it_draws_up_and_down_no_harder_than_the_cross_entropy():
    found = pieces(ends(1, 2, 3, 4, 4), ends(1, 2, 3, 4, 4))
    student = torch.tensor([-1.0, -1.0, -9.0, -1.0, 0.0], requires_grad=True)
    teacher = torch.tensor([-1.5, -0.75, -1.0, -50.0, 0.0])
    (gradient,) = torch.autograd.grad(piece_loss(student, teacher, found).mean(), student)
    # That of the mean of −ln q is −1/5 for every token.
    torch.testing.assert_close(gradient * 5, torch.tensor([0.5, -0.25, -1.0, 1.0, 0.0]))


@given(ENDS, ENDS, st.integers(0, 10**6))
def test_its_only_minimum_is_equality(teacher_ends: np.ndarray, student_ends: np.ndarray, seed: int):
    """Going down from anywhere leads to equal pieces, with gradients that vanish nowhere else."""
    found = pieces(teacher_ends, student_ends)
    generator = torch.Generator().manual_seed(seed)
    teacher = -3 * torch.rand(len(teacher_ends), generator=generator, dtype=torch.float64)
    student = -3 * torch.rand(len(student_ends), generator=generator, dtype=torch.float64)
    student.requires_grad_()
    losses = piece_loss(student, teacher, found)
    (gradient,) = torch.autograd.grad(losses.sum(), student)
    sums = [
        [float(side.detach()[torch.from_numpy(of == piece)].sum()) for piece in range(found.count)]
        for of, side in ((found.of_student, student), (found.of_teacher, teacher))
    ]
    for piece, (own, wanted) in enumerate(zip(*sums, strict=True)):
        tokens = torch.from_numpy(found.of_student == piece)
        mean = (own - wanted) / int(tokens.sum())
        expected = torch.full((int(tokens.sum()),), max(-1.0, min(1.0, mean)), dtype=torch.float64)
        torch.testing.assert_close(gradient[tokens], expected, atol=1e-9, rtol=0)
        assert (losses[tokens] > 0).all() == (abs(mean) > 1e-12)
    moved = student.detach().clone()
    for piece, (own, wanted) in enumerate(zip(*sums, strict=True)):
        moved[np.flatnonzero(found.of_student == piece)[-1]] += wanted - own
    torch.testing.assert_close(piece_loss(moved, teacher, found), torch.zeros_like(moved), atol=1e-20, rtol=0)


def test_it_is_never_more_than_with_a_piece_for_each_token():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (-torch.rand(9, generator=generator) for _ in range(2))
    each = piece_loss(student, teacher, pieces(ends(*range(1, 9), 8), ends(*range(1, 9), 8)))
    for cut in (ends(8, 8), ends(2, 5, 8, 8), ends(1, 8, 8)):
        found = pieces(cut, ends(*range(1, 9), 8))
        summed = torch.zeros(found.count).index_add(0, torch.from_numpy(found.of_student), teacher)
        assert piece_loss(student, summed, found).mean() <= each.mean()


def test_gradients_are_those_of_finite_differences():
    found = joined([pieces(ends(3, 8, 8), ends(3, 5, 8, 8)), pieces(ends(2, 4, 4), ends(4, 4))])
    student = (-2 * torch.rand(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).requires_grad_()
    teacher = log(0.5, 0.1, 1.0, 0.3, 1e-9, 0.2).requires_grad_()
    assert torch.autograd.gradcheck(lambda own: piece_loss(own, teacher, found), student)
    assert torch.autograd.grad(piece_loss(student, teacher, found).sum(), teacher, allow_unused=True) == (None,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_sums_are_in_float32(dtype: torch.dtype):
    found = Pieces(of_teacher=np.zeros(1, np.int64), of_student=np.zeros(2, np.int64), count=1)
    loss = piece_loss(torch.tensor([-1.0, -0.5], dtype=dtype), torch.tensor([-1.25]), found)
    assert loss.dtype == torch.float32 and loss.tolist() == [0.125**2 / 2] * 2
