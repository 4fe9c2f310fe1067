"""Log-probabilities of what students should have written: against a plain loop, and against the training losses."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from data.errors import Interrupted
from data.records import Likelihood, Question
from data.sets.synthetic import synthetic_questions
from stages import likelihood
from stages.head import IGNORED
from stages.likelihood import student_likelihoods, text_log_probabilities
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import ObjectiveSettings, Task
from stages.student.model import DistillationModel
from stages.student.objective import objective_of
from stages.student.texts import TrainingCollator, target_text, training_record
from tests.fakes import tiny_model, tiny_model_folder, tiny_tokenizer
from tests.stages.student.test_step import example

QUESTIONS = synthetic_questions(6, seed=0, split="test")
RATIONALES = [f"{question.reference} The answer is {question.answer}." for question in QUESTIONS]
EXAMPLES = [
    example(question.text, rationale, question.answer or "")
    for question, rationale in zip(QUESTIONS, RATIONALES, strict=True)
]


class Noted(SilentProgress):
    """Remembers what was said, and how much was done of how much."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.done = self.total = 0

    def start(self, task: str, total: int, done: int = 0) -> None:
        self.total = total

    def advance(self, count: int = 1) -> None:
        self.done += count

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("student"), request.param, adds_begin=True)


def measured(
    folder: Path,
    references: list[str | None],
    prompts: tuple[Task, ...] = ("predict", "explain"),
    progress: SilentProgress | None = None,
    questions: list[Question] = QUESTIONS,
) -> list[Likelihood]:
    with StopSignal() as stop:
        return student_likelihoods(
            folder,
            questions,
            references,
            prompts,
            dtype="float32",
            device="cpu",
            progress=progress or SilentProgress(),
            stop=stop,
        )


def by_a_plain_loop(model: PreTrainedModel, prompt: str, target: str) -> tuple[float, int]:
    """One token after the other, each by a forward pass of its own over what stands before it."""
    tokenizer = tiny_tokenizer(adds_begin=True)
    before, written = tokenizer(prompt)["input_ids"], tokenizer(target, add_special_tokens=False)["input_ids"]
    total = 0.0
    for token in (*written, tokenizer.eos_token_id):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([before])).logits[0, -1].double()
        total += torch.log_softmax(logits, dim=0)[token].item()
        before = [*before, token]
    return total, len(written) + 1


def test_log_probabilities_are_those_of_a_plain_loop(folder: Path) -> None:
    progress = Noted()
    found = measured(folder, [*RATIONALES[:4], None, None], progress=progress)
    assert [one.question_id for one in found] == [*(q.id for q in QUESTIONS), *(q.id for q in QUESTIONS[:4])]
    assert [one.prompt for one in found] == ["predict"] * 6 + ["explain"] * 4
    assert (progress.done, progress.total, progress.notes) == (10, 10, [])
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    texts = {question.id: question.text for question in QUESTIONS}
    for one in found:
        total, tokens = by_a_plain_loop(model, f"{one.prompt}: {texts[one.question_id]}\n", one.target)
        assert one.log_probability == pytest.approx(total, rel=1e-5)
        assert (one.tokens, one.bytes) == (tokens, tokens - 1)  # the tokenizer of tests has a token a byte
    assert [one.target for one in found[6:]] == RATIONALES[:4]


def test_they_are_minus_the_losses_of_training_on_that_one_record(folder: Path) -> None:
    """L_pre and L_exp of a batch of one record, as the objective `dss` trains by them."""
    tokenizer = tiny_tokenizer(adds_begin=True)
    student = AutoModelForCausalLM.from_pretrained(folder)
    model = DistillationModel(student, objective_of(ObjectiveSettings(name="dss")), learning_rate=1e-3).eval()
    found = {(one.question_id, one.prompt): one for one in measured(folder, RATIONALES)}
    collator = TrainingCollator(pad=tokenizer.pad_token_id)
    for question, one in zip(QUESTIONS, EXAMPLES, strict=True):
        losses = model(**collator([(0, training_record(tokenizer, one, None))]))
        for prompt, loss in (("predict", losses["L_pre"]), ("explain", losses["L_exp"])):
            likely = found[question.id, prompt]
            assert likely.log_probability is not None
            assert likely.log_probability / likely.tokens == pytest.approx(-loss.item(), rel=1e-5)


def test_texts_and_targets_are_those_of_training() -> None:
    tokenizer = tiny_tokenizer(adds_begin=True)
    for one in EXAMPLES:
        record = training_record(tokenizer, one, None)
        text = target_text(tokenizer, f"explain: {one.marked.question}\n", one.rationale.text)
        assert text.ids.tolist() == record.explain.ids.tolist()
        assert text.labels.tolist() == record.explain.labels.tolist()


def test_the_batch_changes_nothing() -> None:
    tokenizer, model = tiny_tokenizer(), tiny_model("llama").eval()
    texts = [target_text(tokenizer, "predict: a\n", "4" * count) for count in (1, 7, 3)]
    texts.append(target_text(tokenizer, f"explain: {'a' * 40}\n", "b"))
    alone = [text_log_probabilities(model, [text])[0] for text in texts]
    assert text_log_probabilities(model, texts) == pytest.approx(alone, rel=1e-5)
    assert [int((text.labels != IGNORED).sum()) for text in texts] == [2, 8, 4, 2]


def test_logits_of_the_question_are_not_made() -> None:
    tokenizer, model = tiny_tokenizer(), tiny_model("llama").eval()
    shapes = []
    model.lm_head.register_forward_hook(lambda _module, _inputs, logits: shapes.append(tuple(logits.shape[:2])))
    text_log_probabilities(model, [target_text(tokenizer, f"predict: {'a' * 99}\n", "42")])
    assert shapes == [(1, 3)]  # of two bytes and the end


def test_a_text_longer_than_the_student_reads_is_counted_and_has_no_log_probability(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    long = replace(QUESTIONS[0], id="long", text="a" * (model.config.n_positions + 1))
    folder = tiny_model_folder(tmp_path, "gpt2")
    progress = Noted()
    found = measured(folder, [None, None], ("predict",), progress, questions=[long, QUESTIONS[1]])
    assert [one.log_probability is None for one in found] == [True, False]
    (note,) = progress.notes
    assert note.startswith(f"log-probabilities: 1 of 2 texts are left out, longer than {folder.name} can read")
    assert progress.total == 1


def test_without_anything_to_write_no_model_is_loaded(tmp_path: Path) -> None:
    assert measured(tmp_path / "nothing", [None] * 6, ("explain",)) == []


def test_out_of_memory_makes_smaller_batches_and_says_no_setting_of_the_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny_model_folder(tmp_path, "llama")
    expected = measured(folder, RATIONALES)
    right = likelihood.text_log_probabilities

    def at_most_two(model: PreTrainedModel, texts: list) -> list[float]:
        if len(texts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return right(model, texts)

    monkeypatch.setattr(likelihood, "text_log_probabilities", at_most_two)
    with caplog.at_level(logging.WARNING):
        found = measured(folder, RATIONALES)
    assert [one.log_probability for one in found] == pytest.approx([one.log_probability for one in expected], rel=1e-5)
    assert caplog.messages and not [line for line in caplog.messages if "attention." in line]


def test_a_signal_ends_it_between_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_model_folder(tmp_path, "llama")
    monkeypatch.setattr(likelihood, "BATCH_TOKENS", 1)
    with StopSignal() as stop, pytest.raises(Interrupted):

        class SignalAfterTheFirst(Noted):
            def advance(self, count: int = 1) -> None:
                super().advance(count)
                stop._remember(15, None)

        progress = SignalAfterTheFirst()
        student_likelihoods(
            folder, QUESTIONS, RATIONALES, ("predict",), dtype="float32", device="cpu", progress=progress, stop=stop
        )
    assert progress.done == 1
