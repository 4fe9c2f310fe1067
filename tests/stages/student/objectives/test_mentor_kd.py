"""Soft labels as the objectives use them: the cross-entropy gives way to a divergence from what the teacher said."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from cache.soft_labels.block import SoftLabelBlock
from stages.attention.batches import TokenBudget
from stages.head import IGNORED
from stages.settings import ObjectiveSettings, SoftLabelTerm, TermSettings
from stages.soft_labels.head import TeacherHead
from stages.soft_labels.teacher import Keeping, TeacherPass, teacher_texts
from stages.student.global_batches import counts
from stages.student.model import DistillationModel
from stages.student.objective import objective_of
from stages.student.records.soft_labels import SoftTargets
from stages.student.step import gradient_norms
from stages.student.texts import TrainingCollator, training_record
from tests.fakes import tiny_model_folder, tiny_tokenizer
from tests.stages.student.objectives.reference import slow_cross_entropy
from tests.stages.student.test_step import EXAMPLES, LEARNING_RATE

MENTOR_KD = ObjectiveSettings(name="mentor-kd")


@pytest.fixture
def teacher(tmp_path) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    folder = tiny_model_folder(tmp_path / "teacher", "llama")
    found = AutoModelForCausalLM.from_pretrained(folder).eval()
    for weight in found.parameters():  # another model than the student, and surer
        weight.data = weight.data + 0.3 * torch.randn_like(weight)
    return found


def labels_of(teacher: PreTrainedModel, keeping: Keeping) -> tuple[Mapping[str, SoftLabelBlock], TeacherHead | None]:
    asked = TeacherPass(teacher, keeping)
    texts = teacher_texts(tiny_tokenizer(), {one.key: one.marked for one in EXAMPLES}, context="student")
    return {block.key: block for block in asked.blocks(texts, TokenBudget(512))}, asked.head


def batch_of(blocks: Mapping[str, SoftLabelBlock], settings: ObjectiveSettings, examples=EXAMPLES):
    tokenizer, objective = tiny_tokenizer(), objective_of(settings)
    term = objective.soft_labels
    assert term is not None
    records = [training_record(tokenizer, one, None) for one in examples]
    targets = SoftTargets(blocks=blocks, settings=term)
    collator = TrainingCollator(pad=tokenizer.pad_token_id, tasks=objective.tasks, soft_labels=targets)
    return collator(list(enumerate(records)))


def losses_of(student, settings: ObjectiveSettings, batch, head: TeacherHead | None, *, packs: bool | None = None):
    model = DistillationModel(student, objective_of(settings), learning_rate=LEARNING_RATE, teacher_head=head)
    if packs is not None:
        model.packs = packs
    return model(**{name: value for name, value in batch.items() if name != "record"})


def slow_divergence(student, teacher, batch, temperature: float) -> torch.Tensor:
    """Mean of KL(teacher ‖ student) over target tokens, text by text, token by token, in float64."""
    found = []
    for ids, labels in zip(batch["explain_ids"], batch["explain_labels"], strict=True):
        last = int(labels.ne(IGNORED).nonzero().max())
        with torch.no_grad():
            wanted = (teacher(input_ids=ids[None, : last + 1]).logits[0].double() / temperature).softmax(dim=-1)
        said = (student(input_ids=ids[None, : last + 1]).logits[0].double() / temperature).log_softmax(dim=-1)
        found += [
            (wanted[at - 1] * (wanted[at - 1].log() - said[at - 1])).sum()
            for at in range(1, last + 1)
            if labels[at] != IGNORED
        ]
    return torch.stack(found).mean().float()


@pytest.mark.parametrize("packs", [True, False])
def test_the_loss_takes_part_of_the_cross_entropy(student, teacher, packs: bool):
    """(1 − λ) L_exp + λ KL at temperature 2, without T², from the teacher's hidden states and head."""
    blocks, head = labels_of(teacher, Keeping(layout="hidden", hidden="float32"))
    batch = batch_of(blocks, MENTOR_KD)
    out = losses_of(student, MENTOR_KD, batch, head, packs=packs)
    l_exp = slow_cross_entropy(student, batch["explain_ids"], batch["explain_labels"])
    l_soft = slow_divergence(student, teacher, batch, 2.0)
    torch.testing.assert_close(out["L_soft"], l_soft, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out["loss"], 0.7 * l_exp + 0.3 * l_soft, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("temperature", "squared"), [(1.0, True), (2.0, True), (2.0, False)])
def test_all_tokens_kept_are_the_whole_distribution(student, teacher, temperature: float, squared: bool):
    term = SoftLabelTerm(weight=0.4, temperature=temperature, squared=squared)
    settings = ObjectiveSettings(name="dss", alpha=0.25, terms=TermSettings(soft_labels=term))
    blocks, _ = labels_of(teacher, Keeping(layout="top", k=teacher.config.vocab_size))
    batch = batch_of(blocks, settings)
    out = losses_of(student, settings, batch, None)
    l_soft = slow_divergence(student, teacher, batch, temperature) * (temperature**2 if squared else 1)
    l_pre, l_exp = (
        slow_cross_entropy(student, batch[f"{t}_ids"], batch[f"{t}_labels"]) for t in ("predict", "explain")
    )
    torch.testing.assert_close(out["L_soft"], l_soft, rtol=5e-3, atol=1e-4)  # logits are stored in float16
    expected = 0.25 * l_pre + 0.75 * (0.6 * l_exp + 0.4 * out["L_soft"])
    torch.testing.assert_close(out["loss"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out["L_exp"], l_exp, rtol=1e-4, atol=1e-5)


def test_pieces_of_text_ask_for_no_vocabulary_in_common(student, teacher):
    """With one tokenizer on both sides pieces are tokens, and the loss is Huber's of the two log-probabilities."""
    settings = ObjectiveSettings(name="fine-tune-cot", terms=TermSettings(soft_labels=SoftLabelTerm(match="text")))
    blocks, _ = labels_of(teacher, Keeping(layout="top", k=2))
    batch = batch_of(blocks, settings)
    out = losses_of(student, settings, batch, None)
    found = []
    for row, example in enumerate(EXAMPLES):
        ids, labels = batch["explain_ids"][row], batch["explain_labels"][row]
        targets = [at for at in range(1, len(ids)) if labels[at] != IGNORED]
        with torch.no_grad():
            said = student(input_ids=ids[None, : max(targets) + 1]).logits[0].double().log_softmax(dim=-1)
        differences = [
            float(said[at - 1, ids[at]]) - float(wanted)
            for at, wanted in zip(targets, blocks[example.key].log_probability, strict=True)
        ]
        found += [d * d / 2 if abs(d) <= 1 else abs(d) - 0.5 for d in differences]
    assert out["L_soft"].item() == pytest.approx(np.mean(found), rel=1e-4)


@pytest.mark.parametrize("match", ["tokens", "text"])
def test_micro_batches_add_up_to_the_batch(student, teacher, match: str):
    term = SoftLabelTerm(match=match)
    settings = ObjectiveSettings(name="fine-tune-cot", terms=TermSettings(soft_labels=term))
    blocks, _ = labels_of(teacher, Keeping(layout="top", k=8))
    whole = losses_of(student, settings, batch_of(blocks, settings), None)
    parts = [batch_of(blocks, settings, [example]) for example in EXAMPLES]
    counted = [counts(part) for part in parts]
    loss = torch.zeros(())
    for part, one in zip(parts, counted, strict=True):
        shares = {name: torch.tensor(one[name] / sum(each[name] for each in counted)) for name in one}
        loss = loss + losses_of(student, settings, {**part, **shares}, None)["loss"]
    torch.testing.assert_close(loss, whole["loss"], rtol=1e-4, atol=1e-5)


def test_tokens_whose_borders_the_teacher_does_not_have_count_in_the_cross_entropy_alone(student, teacher):
    term = SoftLabelTerm()
    settings = ObjectiveSettings(name="fine-tune-cot", terms=TermSettings(soft_labels=term))
    blocks, _ = labels_of(teacher, Keeping(layout="top", k=8))
    complete = batch_of(blocks, settings)
    assert complete["soft_counted"].all()
    first = EXAMPLES[0].key
    moved = blocks[first].ends.copy()
    moved[2] += 1  # neither the token there nor the next one is one of the student's now
    batch = batch_of({**blocks, first: SoftLabelBlock(**{**vars(blocks[first]), "ends": moved})}, settings)
    assert batch["soft_counted"].tolist() == [at not in (2, 3) for at in range(len(complete["soft_counted"]))]
    out = losses_of(student, settings, batch, None)
    assert out["L_exp"].item() == pytest.approx(losses_of(student, settings, complete, None)["L_exp"].item())
    assert torch.isfinite(out["loss"])


def top_of(teacher: PreTrainedModel, divergence: str = "forward-kl"):
    """Settings and a batch: the likeliest tokens at T = 1, logits in float16 as they are stored."""
    term = SoftLabelTerm(divergence=divergence, weight=0.4)
    settings = ObjectiveSettings(name="dss", terms=TermSettings(soft_labels=term))
    blocks, _ = labels_of(teacher, Keeping(layout="top", k=8))
    batch = batch_of(blocks, settings)
    assert batch["soft_logits"].dtype == torch.float16
    return settings, batch


def gradients_of(loss: torch.Tensor, student) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss, list(student.parameters()), retain_graph=True)


@pytest.mark.parametrize("divergence", ["forward-kl", "reverse-kl", "jensen-shannon"])
def test_logits_in_pieces_give_the_losses_and_gradients_of_all_at_once(
    student, teacher, divergence: str, monkeypatch: pytest.MonkeyPatch
):
    settings, batch = top_of(teacher, divergence)
    whole = losses_of(student, settings, batch, None)
    monkeypatch.setattr("stages.head.MOST_LOGITS", 3 * student.config.vocab_size)
    pieces = losses_of(student, settings, batch, None)
    for name in ("L_soft", "L_exp", "loss"):
        torch.testing.assert_close(pieces[name], whole[name], rtol=1e-5, atol=1e-6)
    for one, other in zip(gradients_of(pieces["loss"], student), gradients_of(whole["loss"], student), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_norms_of_gradients_leave_the_graph_as_it_is(student, teacher):
    settings, batch = top_of(teacher)
    losses = losses_of(student, settings, batch, None)
    expected = gradients_of(losses["loss"], student)
    norms = gradient_norms(losses["L_exp"], losses["L_soft"], list(student.parameters()))
    assert all(norm > 0 for norm in norms)
    assert all(map(torch.equal, gradient_norms(losses["L_exp"], losses["L_soft"], list(student.parameters())), norms))
    losses["loss"].backward()
    for weight, gradient in zip(student.parameters(), expected, strict=True):
        assert torch.equal(weight.grad, gradient)


def test_mixed_precision_is_near(student, teacher):
    settings, batch = top_of(teacher)
    exact = losses_of(student, settings, batch, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = losses_of(student, settings, batch, None)
    assert mixed["L_soft"].dtype == mixed["loss"].dtype == torch.float32
    torch.testing.assert_close(mixed["L_soft"], exact["L_soft"], rtol=0.02, atol=0.02)
    of_exact, of_mixed = (
        torch.cat([one.flatten() for one in gradients_of(losses["loss"], student)]) for losses in (exact, mixed)
    )
    assert float((of_mixed - of_exact).norm() / of_exact.norm()) < 0.05


def test_tokens_that_do_not_count_move_the_student_by_their_cross_entropy_alone(student, teacher):
    settings, batch = top_of(teacher)
    none = losses_of(student, settings, {**batch, "soft_counted": torch.zeros_like(batch["soft_counted"])}, None)
    assert none["L_soft"].item() == 0
    assert all((one == 0).all() for one in gradients_of(none["L_soft"], student))
    plain = losses_of(student, ObjectiveSettings(name="dss"), batch, None)
    for one, other in zip(gradients_of(none["L_exp"], student), gradients_of(plain["L_exp"], student), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
