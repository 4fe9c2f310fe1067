"""One optimizer step of a real student, and what it has become, asked by two engines."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.prompts import explain_prompt, predict_prompt
from data.records import Question, Rationale
from stages.attention.select import Example
from stages.attention.stepwise import stepwise_attention
from stages.engines.contract import Decoding, EngineSetup
from stages.engines.start import open_engine
from stages.models.load import load_causal_lm
from stages.models.tokenizer import encode, load_tokenizer
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import ObjectiveSettings, RouterName, StudentSettings, TrainingSettings
from stages.student.train import train_student
from tests.real.conftest import RecordProperty, first_of_each, marked, report

pytestmark = pytest.mark.real
LAYERS = 30
NEW_TOKENS = 48
NEAR = 1e-3
"""Two tokens whose logits differ by less may change places where another engine rounds otherwise."""


def example(question: Question) -> Example:
    record = marked(question)
    rationale = Rationale(question=question, text=record.rationale, answer=question.answer, phase="plain")
    return Example(rationale=rationale, marked=record, key=f"{question.dataset} {question.id}")


class Notes(SilentProgress):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


Train = Callable[[Path, int, ObjectiveSettings, TrainingSettings], list[str]]
"""Trains a student in a folder on so many questions of each set, and returns what was said meanwhile."""


@pytest.fixture(scope="module")
def train(
    real_folder: Path,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: dict[str, list[Question]],
) -> Train:
    """The student is the model itself, and is to look where it looked."""

    def trained(out: Path, count: int, objective: ObjectiveSettings, training: TrainingSettings) -> list[str]:
        examples = [example(question) for question in first_of_each(questions, count)]
        blocks = stepwise_attention(teacher, tokenizer, [one.marked for one in examples])
        notes = Notes()
        with StopSignal() as stop:
            train_student(
                examples,
                StudentSettings(model=str(real_folder)),
                objective,
                training,
                attention={one.key: block for one, block in zip(examples, blocks, strict=True)},
                seed=0,
                out=out,
                fingerprint="real",
                progress=notes,
                stop=stop,
            )
        return notes.said

    return trained


@pytest.fixture(scope="module")
def student(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student after one step."""
    out = tmp_path_factory.mktemp("student") / "seed-0"
    train(
        out,
        2,
        ObjectiveSettings(),
        TrainingSettings(batch_size=4, epochs=1, warmup=0, scheduler="constant", device="cpu"),
    )
    return out


def entropy(weights: np.ndarray) -> float:
    """-Σ p ln p in nats."""
    return float(-(weights * np.log(np.maximum(weights, 1e-30))).sum())


def test_a_step_has_finite_losses_and_moves_the_student_and_its_router(
    student: Path, real_folder: Path, record_property: RecordProperty
) -> None:
    (logged,) = json.loads((student / "training.json").read_text())["log"]
    losses = {name: logged[name] for name in ("train_loss", "L_pre", "L_exp", "L_att")}
    assert all(math.isfinite(loss) and loss > 0 for loss in losses.values()), losses
    assert losses["train_loss"] == pytest.approx(
        0.5 * losses["L_pre"] + 0.5 * losses["L_exp"] + losses["L_att"], rel=1e-5
    )
    before, after = (load_file(folder / "model.safetensors") for folder in (real_folder, student))
    assert before.keys() == after.keys()
    assert all(torch.isfinite(after[name]).all() for name in after)
    assert sum(not torch.equal(before[name], after[name]) for name in after) == len(after)
    table = pd.read_parquet(student / "layer_weights.parquet")
    of_teacher, of_student = (np.stack(table[name].to_list()).astype(float) for name in ("teacher", "student"))
    assert of_teacher.shape == of_student.shape == (4, LAYERS)
    np.testing.assert_allclose(of_student.sum(axis=1), 1, rtol=1e-5)
    entropies = {
        "even": math.log(LAYERS),
        "teacher": float(np.mean([entropy(row) for row in of_teacher])),
        "router": float(np.mean([entropy(row) for row in of_student])),
    }
    report(record_property, {**losses, **{f"entropy, {name}": value for name, value in entropies.items()}})
    assert 0 < entropies["router"] < entropies["even"] and 0 < entropies["teacher"] < entropies["even"]


@pytest.mark.parametrize(("router", "collapses"), [("paper", True), ("mean", False)])
def test_the_papers_router_becomes_a_single_layer_within_twenty_steps_and_is_told_of(
    train: Train, tmp_path: Path, router: RouterName, collapses: bool, record_property: RecordProperty
) -> None:
    """At the default learning rate and temperatures; that of means over tokens goes on mixing."""
    training = TrainingSettings(batch_size=2, epochs=4, device="cpu")
    said = train(tmp_path, 5, ObjectiveSettings(router=router), training)
    logged = [entry for entry in json.loads((tmp_path / "training.json").read_text())["log"] if "loss" in entry]
    assert [entry["step"] for entry in logged] == [10, 20]
    report(record_property, {f"router entropy, {router}, {one['step']} steps": one["router_entropy"] for one in logged})
    assert any("mixture of layers is almost a single one" in line for line in said) == collapses
    assert logged[-1]["router_entropy"] < 0.1 if collapses else logged[-1]["router_entropy"] > 0.8


def greedy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[list[int], list[float]]:
    """Arg max one token at a time, and how far each was ahead of the next best."""
    (ids,) = encode(tokenizer, [prompt], adds_special_tokens=True)
    written: list[int] = []
    margins: list[float] = []
    cache = None
    following = torch.tensor([ids])
    with torch.no_grad():
        while len(written) < NEW_TOKENS and tokenizer.eos_token_id not in written:
            answer = model(following, past_key_values=cache, use_cache=True)
            best = answer.logits[0, -1].topk(2)
            written.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[1]))
            cache, following = answer.past_key_values, best.indices[None, :1]
    return written, margins


@pytest.mark.vllm
@pytest.mark.slow
def test_the_saved_student_says_the_same_in_vllm(
    student: Path, questions: dict[str, list[Question]], record_property: RecordProperty
) -> None:
    """Greedy text is equal, as far as no two tokens were nearly as good."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    prompts = [
        ask(question.text) for question in first_of_each(questions, 4) for ask in (explain_prompt, predict_prompt)
    ]
    setup = EngineSetup(
        model=str(student),
        revision=None,
        decoding=Decoding(max_tokens=NEW_TOKENS),
        dtype="float32",
        device="cpu",
        arguments={"max_model_len": 512},
    )
    with open_engine("vllm", setup) as engine:
        texts = [generation.text for generation in engine.generate(prompts)]
    model, tokenizer = load_causal_lm(str(student), None, "float32").eval(), load_tokenizer(str(student), None)
    compared, total = 0, 0
    for prompt, text in zip(prompts, texts, strict=True):
        written, margins = greedy(model, tokenizer, prompt)
        sure = next((place for place, margin in enumerate(margins) if margin < NEAR), len(written))
        expected = tokenizer.decode(written[:sure], skip_special_tokens=True)
        assert text.startswith(expected) and (sure < len(written) or text == expected), (prompt, text, expected)
        compared, total = compared + sure, total + len(written)
    report(record_property, {"tokens": total, "compared": compared})
    assert compared > 0.8 * total > 0
