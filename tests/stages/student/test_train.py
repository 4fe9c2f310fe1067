"""Stage two on tiny students: what comes out, what stops it, and where an interrupted run ends."""

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerState

from cache.keys import record_key
from cache.reader import AttentionStore
from cache.writer import AttentionBlock, AttentionWriter
from data.errors import ConfigError, Interrupted, MissingRecordsError
from data.sets.synthetic import synthetic_questions
from stages.attention.select import Example
from stages.attention.stepwise import stepwise_attention
from stages.evaluation import evaluate_student
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import EvaluationSettings, ObjectiveSettings, SinglePair, StudentSettings, TrainingSettings
from stages.student import train as training_stage
from stages.student.adapters import add_adapter
from stages.student.objective import objective_of
from stages.student.texts import TrainingCollator, training_record
from stages.student.train import train_student
from stages.student.trainer import BalanceWarnings, StudentTrainer
from tests.cache.truth import make_space
from tests.fakes import tiny_model_folder, tiny_tokenizer
from tests.stages.student.test_step import example, model_of

MOLSAKI = ObjectiveSettings()
QUESTIONS = synthetic_questions(12, seed=0, split="train")
EXAMPLES = [example(q.text, f"{q.reference} The answer is {q.answer}.", q.answer) for q in QUESTIONS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("student"), "llama", hidden=16, heads=2, kv_heads=1)


@pytest.fixture(scope="module")
def attention(folder: Path) -> dict[str, np.ndarray]:
    teacher = AutoModelForCausalLM.from_pretrained(folder)
    blocks = stepwise_attention(teacher, tiny_tokenizer(), [one.marked for one in EXAMPLES])
    return {one.key: block for one, block in zip(EXAMPLES, blocks, strict=True)}


def train(
    folder: Path,
    out: Path,
    attention: dict[str, np.ndarray] | None,
    *,
    objective: ObjectiveSettings = MOLSAKI,
    student: StudentSettings | None = None,
    progress: SilentProgress | None = None,
    fingerprint: str = "same",
    examples: list[Example] = EXAMPLES,
    **settings: float,
) -> None:
    training = TrainingSettings(
        **{"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "checkpoint_steps": 2, "device": "cpu", **settings}
    )
    with StopSignal() as stop:
        train_student(
            examples,
            student or StudentSettings(model=str(folder)),
            objective,
            training,
            attention=attention,
            seed=3,
            out=out,
            fingerprint=fingerprint,
            progress=progress or SilentProgress(),
            stop=stop,
        )


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


def test_a_pad_token_without_an_embedding_is_not_used(folder, attention, tmp_path):
    """transformers numbers a pad token that tokenizer.json lacks, behind the last embedding."""
    odd = tmp_path / "odd"
    shutil.copytree(folder, odd)
    config = json.loads((odd / "tokenizer_config.json").read_text())
    (odd / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "<nobody knows me>"}))
    known = AutoModelForCausalLM.from_pretrained(odd).get_input_embeddings().num_embeddings
    assert AutoTokenizer.from_pretrained(odd).pad_token_id >= known
    train(odd, tmp_path / "out", attention)
    questions = synthetic_questions(3, seed=1, split="test")
    settings = EvaluationSettings(max_new_tokens=2, batch_size=3)
    with StopSignal() as stop:
        answered = evaluate_student(
            tmp_path / "out", questions, settings,
            dtype="float32", device="cpu", progress=SilentProgress(), stop=stop,
        )  # fmt: skip
    assert len(answered) == 6


class TermAfter(SilentProgress):
    """Sends this process SIGTERM after so many steps, as a batch system does."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, count: int = 1) -> None:
        self.left -= count
        if count and self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("place", ["_load_student", "_training_records", "last_checkpoint"])
def test_a_signal_before_the_first_step_ends_it_there(folder, attention, tmp_path, monkeypatch, place):
    right = getattr(training_stage, place)

    def signalled(*arguments: object) -> object:
        signal.raise_signal(signal.SIGUSR1)
        return right(*arguments)

    monkeypatch.setattr(training_stage, place, signalled)
    monkeypatch.setattr(training_stage.StudentTrainer, "train", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(Interrupted, match="stopped by SIGUSR1 after saving what was saved before"):
        train(folder, tmp_path, attention)


def test_a_plain_checkpoint_comes_out(folder, attention, tmp_path):
    train(folder, tmp_path, attention)
    student, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert not [name for name in weights(tmp_path) if "router" in name or "student" in name]
    assert tokenizer("a")["input_ids"] == tiny_tokenizer()("a")["input_ids"]
    assert student.generate(**tokenizer("a", return_tensors="pt"), max_new_tokens=2).shape[1] > 1
    assert "molsaki" not in (tmp_path / "config.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json", "generation_config.json", "layer_weights.parquet", "model.safetensors",
        "student_attention.parquet", "tokenizer.json", "tokenizer_config.json", "training.json",
    ]  # fmt: skip


def test_whoever_may_read_a_student_may_read_its_weights(folder, attention, tmp_path):
    """safetensors writes weights for their owner alone, whatever the umask."""
    peft = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    train(folder, tmp_path, attention, student=StudentSettings(model=str(folder), peft=peft))
    found = sorted(tmp_path.rglob("*.safetensors"))
    assert [path.parent.name for path in found] == ["adapter", tmp_path.name]
    assert {path.stat().st_mode for path in found} == {(tmp_path / "config.json").stat().st_mode}


def test_a_student_of_the_first_layers_is_trained_saved_and_aligned_as_one_of_so_many(folder, attention, tmp_path):
    """Without learning, what is saved is what was loaded: the whole model's weights without its second layer."""
    settings = StudentSettings(model=str(folder), layers=1)
    train(folder, tmp_path, attention, student=settings, learning_rate=1e-30)
    student = AutoModelForCausalLM.from_pretrained(tmp_path)
    before = load_file(folder / "model.safetensors")
    assert student.config.num_hidden_layers == 1
    assert weights(tmp_path).keys() == {name for name in before if ".layers.1." not in name}
    for name, weight in weights(tmp_path).items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=1e-20)
    assert json.loads((tmp_path / "training.json").read_text())["log"][-1]["layer_weights"] == [1.0]


def test_pairs_of_layers_count_those_that_are_kept(folder, attention, tmp_path):
    objective = ObjectiveSettings(alignment=SinglePair(single=(1, 2)))
    with pytest.raises(ConfigError, match="names layer 2 of the student, which has 1"):
        train(folder, tmp_path, attention, objective=objective, student=StudentSettings(model=str(folder), layers=1))


def test_fresh_layers_and_an_adapter_go_with_fewer_layers(folder, attention, tmp_path):
    peft = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    settings = StudentSettings(model=str(folder), layers=1, initialise="random", peft=peft)
    train(folder, tmp_path, attention, student=settings)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.num_hidden_layers == 1


def test_the_summary_tells_every_part_of_the_loss(folder, attention, tmp_path):
    train(folder, tmp_path, attention)
    summary = json.loads((tmp_path / "training.json").read_text())
    assert summary["fingerprint"] == "same"
    assert (summary["seed"], summary["records"], summary["steps"]) == (3, 12, 6)
    logged = summary["log"][-1]
    assert {"L_pre", "L_exp", "L_att", "layer_weights"} <= set(logged)
    assert sum(logged["layer_weights"]) == pytest.approx(1)


class Notes(SilentProgress):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def test_a_mixture_that_becomes_a_single_layer_is_told_once_with_what_to_change(folder, attention, tmp_path):
    """At a low temperature the router of a real student does this within a few steps."""
    notes = Notes()
    objective = ObjectiveSettings(tau_student=0.001, router="paper")
    train(folder, tmp_path, attention, objective=objective, progress=notes, epochs=8, learning_rate=0.01)
    log = [entry for entry in json.loads((tmp_path / "training.json").read_text())["log"] if "loss" in entry]
    assert len(log) == 2 and all(0 <= entry["router_entropy"] <= 1 for entry in log)
    (warning,) = [line for line in notes.said if "mixture of layers" in line]
    assert re.match(r"warning: seed 3: after [12]0 steps the student's mixture of layers is almost a single", warning)
    assert "objective.router: mean, or an objective.tau_student above 0.001, keeps more of them" in warning


def test_an_attention_loss_without_weight_is_told(folder, attention, tmp_path):
    for beta, told in ((1e-6, 1), (0.0, 0), (50.0, 0)):
        notes = Notes()
        train(folder, tmp_path / str(beta), attention, objective=ObjectiveSettings(beta=beta), progress=notes, epochs=4)
        assert len([line for line in notes.said if "objective.beta above 1e-06" in line]) == told


def test_a_gradient_ratio_of_less_than_a_thousandth_is_told_once_with_what_to_change():
    said: list[str] = []
    warnings = BalanceWarnings(objective_of(ObjectiveSettings(beta=2.0)), "seed 3", said.append)
    state = TrainerState(global_step=50)
    for ratio in (1.1e-3, 4e-4, 1e-5):
        warnings.on_log(None, state, None, {"gradient_ratio": ratio, "L_att": 1.0, "L_exp": 1.0})
    assert said == [
        "warning: seed 3: after 50 steps the gradient of the attention loss is 0.0004 of that of the rationale loss; "
        "an objective.beta above 2 gives it weight"
    ]


def test_an_attention_loss_of_nothing_is_told_and_no_weight_is_advised():
    said: list[str] = []
    warnings = BalanceWarnings(objective_of(ObjectiveSettings()), "seed 3", said.append)
    warnings.on_log(None, TrainerState(global_step=5), None, {"gradient_ratio": 0.0, "L_att": 0.0, "L_exp": 1.0})
    assert said == [
        "warning: seed 3: after 5 steps the attention loss is 0, as it is where no text has two critical words; "
        "attention.critical says which words are"
    ]


@pytest.mark.parametrize("peft", [{}, {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "up_proj"]}])
def test_the_gradient_ratio_is_that_of_two_backward_passes_of_the_first_batch(folder, attention, tmp_path, peft):
    """One step of one batch of all records, whose gradients are taken here apart, loss by loss, into `.grad`.

    An adapter of LoRA begins at B = 0, so that only B has a gradient at first.
    """
    settings = ObjectiveSettings(alpha=0.3, beta=2.0)
    student = StudentSettings(model=str(folder), peft=peft)
    train(folder, tmp_path, attention, student=student, objective=settings, batch_size=12, epochs=1)
    log = json.loads((tmp_path / "training.json").read_text())["log"]
    (logged,) = [entry["gradient_ratio"] for entry in log if "gradient_ratio" in entry]
    norms = []
    for name, weight in (("L_att", 2.0), ("L_exp", 0.7)):
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        batch = full_batch_of(attention, settings)
        if peft:
            add_adapter(model, peft, print)
        (weight * model_of(model, settings)(**batch)[name]).backward()
        norms.append({one: p.grad.norm() ** 2 for one, p in model.named_parameters() if p.grad is not None})
    both = norms[0].keys() & norms[1].keys()
    assert both and (peft or norms[1].keys() - both)
    expected = [sum(of[name] for name in both) ** 0.5 for of in norms]
    assert logged == pytest.approx(float(expected[0] / expected[1]), rel=1e-4)


def full_batch_of(attention: dict[str, np.ndarray], settings: ObjectiveSettings) -> dict[str, torch.Tensor]:
    """The training records as one batch, with the targets of `attention`."""
    tokenizer, objective = tiny_tokenizer(), objective_of(settings)
    rule = objective.target_rule(2, 2)
    targets = rule.combine([attention[one.key] for one in EXAMPLES])
    records = [training_record(tokenizer, one, target) for one, target in zip(EXAMPLES, targets, strict=True)]
    return TrainingCollator(pad=tokenizer.pad_token_id, tasks=objective.tasks)(list(enumerate(records)))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_accumulation": 2, "gradient_checkpointing": True},
        {"peft": {"peft_type": "LORA", "r": 2, "lora_dropout": 0.3, "target_modules": ["q_proj"]}},
        {"dtype": "bfloat16"},
    ],
)
def test_looking_at_gradients_leaves_weights_and_losses_as_they_are(folder, attention, tmp_path, monkeypatch, settings):
    settings = dict(settings)
    student = StudentSettings(model=str(folder), peft=settings.pop("peft", {}))
    train(folder, tmp_path / "without", attention, student=student, **settings)
    monkeypatch.setattr("stages.student.trainer.RATIO_STEPS", 1)
    train(folder, tmp_path / "with", attention, student=student, **settings)
    monkeypatch.setattr(StudentTrainer, "_is_due_for_norms", lambda *_: False)
    train(folder, tmp_path / "never", attention, student=student, **settings)
    logs = {}
    for name in ("with", "without", "never"):
        log = json.loads((tmp_path / name / "training.json").read_text())["log"]
        logs[name] = [
            {key: value for key, value in entry.items() if not re.match("train_(runtime|samples|steps)", key)}
            for entry in log
        ]
    assert [entry.pop("gradient_ratio", None) for entry in logs["never"]] == [None] * len(logs["never"])
    ratios = {name: [entry.pop("gradient_ratio", None) for entry in logs[name]] for name in ("with", "without")}
    assert any(ratio is not None and ratio > 0 for ratio in ratios["with"]) and ratios["with"] != ratios["without"]
    assert logs["with"] == logs["without"] == logs["never"]
    ours = [weights(tmp_path / name) for name in ("with", "without", "never")]
    assert all(torch.equal(one[name], ours[0][name]) for one in ours for name in one)


def test_no_ratio_is_logged_of_a_loss_without_weight(folder, attention, tmp_path):
    for settings in (ObjectiveSettings(beta=0.0), ObjectiveSettings(alpha=1.0)):
        train(folder, tmp_path / str(settings.alpha), attention, objective=settings)
        log = json.loads((tmp_path / str(settings.alpha) / "training.json").read_text())["log"]
        assert not any("gradient_ratio" in entry for entry in log)


def test_dss_needs_no_attention(folder, tmp_path):
    train(folder, tmp_path, None, objective=ObjectiveSettings(name="dss"))
    assert "L_att" not in json.loads((tmp_path / "training.json").read_text())["log"][-1]


def test_training_changes_the_weights_and_the_seed_repeats_them(folder, attention, tmp_path):
    train(folder, tmp_path / "one", attention)
    train(folder, tmp_path / "two", attention)
    before, one, two = weights(folder), weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["model.layers.0.mlp.up_proj.weight"], before["model.layers.0.mlp.up_proj.weight"])


def in_a_store(attention: dict[str, np.ndarray], place: Path) -> tuple[list[Example], AttentionStore]:
    """The examples under the keys that their texts have in a store, and that store, of two parts."""
    space = make_space(place)
    examples = [replace(one, key=record_key(one.marked)) for one in EXAMPLES]
    blocks = [
        AttentionBlock(
            key=one.key,
            marked=one.marked,
            attention=attention[one.marked.question],
            step_tokens=np.ones(len(one.marked.step_spans), dtype=np.int32),
        )
        for one in examples
    ]
    AttentionWriter(space).append(blocks[:7])
    AttentionWriter(space).append(blocks[7:])
    return examples, AttentionStore(space)


def test_targets_of_a_store_are_kept_for_the_next_student_and_train_alike(folder, attention, tmp_path):
    examples, store = in_a_store(attention, tmp_path)
    train(folder, tmp_path / "mapped", store, examples=examples)
    (file,) = (tmp_path / "targets").iterdir()
    made = file.stat().st_mtime_ns
    train(folder, tmp_path / "again", store, examples=examples)
    train(folder, tmp_path / "mixed", dict(store), examples=examples)
    assert file.stat().st_mtime_ns == made
    mapped, again, mixed = (weights(tmp_path / name) for name in ("mapped", "again", "mixed"))
    for name in mixed:
        assert torch.equal(mapped[name], again[name])
        torch.testing.assert_close(mapped[name], mixed[name], rtol=1e-4, atol=1e-5)


def test_random_initialisation_leaves_the_folder_s_weights_aside(folder, attention, tmp_path):
    train(folder, tmp_path, attention, student=StudentSettings(model=str(folder), initialise="random"))
    name = "model.embed_tokens.weight"
    assert (weights(tmp_path)[name] - weights(folder)[name]).abs().mean() > 1e-3


def test_sigterm_saves_and_the_same_command_ends_at_the_same_weights(folder, attention, tmp_path):
    train(folder, tmp_path / "undisturbed", attention)
    with pytest.raises(Interrupted, match="SIGTERM"):
        train(folder, tmp_path / "stopped", attention, progress=TermAfter(3))
    assert not (tmp_path / "stopped" / "training.json").exists()
    train(folder, tmp_path / "stopped", attention)
    one, other = weights(tmp_path / "undisturbed"), weights(tmp_path / "stopped")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_checkpoints_of_other_settings_are_not_continued(folder, attention, tmp_path):
    train(folder, tmp_path / "undisturbed", attention)
    with pytest.raises(Interrupted):
        train(folder, tmp_path / "other", attention, objective=ObjectiveSettings(alpha=0.9), progress=TermAfter(3),
              fingerprint="other")  # fmt: skip
    train(folder, tmp_path / "other", attention)
    one, other = weights(tmp_path / "undisturbed"), weights(tmp_path / "other")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_missing_attention_stops_before_the_first_step(folder, attention, tmp_path):
    some = {key: attention[key] for key in list(attention)[:-5]}
    with pytest.raises(MissingRecordsError, match=r"5 of 12 records.*molsaki attention"):
        train(folder, tmp_path, some)
    assert not list(tmp_path.iterdir())


def test_texts_too_long_for_the_student_are_left_out_or_refused(folder, attention, tmp_path):
    with pytest.raises(ConfigError, match=r"student\.max_length 5"):
        train(folder, tmp_path, attention, student=StudentSettings(model=str(folder), max_length=5))


def test_texts_longer_than_the_positions_that_the_student_knows_are_refused(attention, tmp_path):
    model = tiny_model_folder(tmp_path / "gpt2", "gpt2", hidden=16, heads=2)
    config = json.loads((model / "config.json").read_text()) | {"n_positions": 40}
    (model / "config.json").write_text(json.dumps(config))
    student = StudentSettings(model=str(model), initialise="random", max_length=1000)
    with pytest.raises(ConfigError) as refused:
        train(model, tmp_path / "out", attention, student=student)
    assert str(refused.value) == (
        f"student.max_length: expected at most 40, the positions that {model} knows, found 1000, and 12 of 12 texts "
        "are longer"
    )


def test_evaluation_marks_every_question_under_both_prompts(folder):
    with StopSignal() as stop:
        predictions = evaluate_student(
            folder,
            QUESTIONS,
            EvaluationSettings(max_new_tokens=4, batch_size=5),
            dtype="float32",
            device="cpu",
            progress=SilentProgress(),
            stop=stop,
        )
    assert [(one.prompt, one.question_id) for one in predictions] == [
        (prompt, question.id) for prompt in ("predict", "explain") for question in QUESTIONS
    ]
    assert {one.gold for one in predictions} == {question.answer for question in QUESTIONS}


def test_a_student_that_has_learned_its_answers_scores_them(folder, tmp_path):
    """Overfit two records: the whole way from training text to parsed answer has to fit together."""
    training = TrainingSettings(epochs=80, batch_size=2, learning_rate=1e-2, device="cpu")
    with StopSignal() as stop:
        train_student(
            EXAMPLES[:2],
            StudentSettings(model=str(folder)),
            ObjectiveSettings(name="dss"),
            training,
            attention=None,
            seed=0,
            out=tmp_path,
            fingerprint="",
            progress=SilentProgress(),
            stop=stop,
        )
        predictions = evaluate_student(
            tmp_path,
            [example.rationale.question for example in EXAMPLES[:2]],
            EvaluationSettings(max_new_tokens=120),
            dtype="float32",
            device="cpu",
            progress=SilentProgress(),
            stop=stop,
        )
    assert [one.correct for one in predictions] == [True] * 4


def test_questions_without_gold_answer_cannot_be_evaluated(folder):
    with StopSignal() as stop, pytest.raises(ConfigError, match="no gold answer"):
        evaluate_student(
            folder,
            [replace(QUESTIONS[0], answer=None)],
            EvaluationSettings(),
            dtype="float32",
            device="cpu",
            progress=SilentProgress(),
            stop=stop,
        )
