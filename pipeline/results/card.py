"""The card of a student: README.md in its folder, for whoever is handed the folder alone.

In: the configuration, what teacher and student are exactly, what the student was trained from, and, once it has been
evaluated, its answers. Out: Markdown with the hub's metadata in front. Models are named by hub id, or by the last part
of a local folder's path: a path of this machine tells nobody anything.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.durable import replace_file
from data.prompts import explain_prompt, predict_prompt
from pipeline.config.schema import Config
from pipeline.results.predictions import SeedFile, read_predictions
from stages.models.identity import ModelIdentity
from stages.student.objective import objective_of

CARD = "README.md"
TRAINED = "training.json"
HOW_MADE = "## How it was made"
TAGS = ["molsaki", "knowledge-distillation", "chain-of-thought"]
METHOD = "https://arxiv.org/abs/2604.15701"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a student was made from; fingerprints are None where nothing of the kind was used."""

    config: Config
    teacher: ModelIdentity
    student: ModelIdentity
    seed: int
    rationales: str
    attention: str | None


@dataclass(frozen=True, kw_only=True)
class CardScore:
    """Accuracy of this one student, as a share of 1."""

    dataset: str
    prompt: str
    accuracy: float
    questions: int


def card_scores(predictions: Path, seed: int) -> list[CardScore]:
    """The accuracies in a file of predictions; none where it is not there."""
    if not predictions.exists():
        return []
    frame = read_predictions([SeedFile(seed=seed, path=predictions)])
    return [
        CardScore(dataset=str(dataset), prompt=str(prompt), accuracy=float(rows.mean()), questions=len(rows))
        for (dataset, prompt), rows in frame.groupby(["dataset", "prompt"], sort=False)["correct"]
    ]


def write_card(folder: Path, origin: Origin, scores: list[CardScore]) -> None:
    """Write the card of the student in `folder`, in place of an earlier one."""
    replace_file(folder / CARD, card_text(folder, origin, scores).encode())


def read_facts(folder: Path) -> dict[str, str]:
    """How the student in `folder` was made, by what its card calls it; empty where there is no card."""
    try:
        lines = (folder / CARD).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    start = lines.index(HOW_MADE) if HOW_MADE in lines else len(lines)
    rows = [line.removeprefix("| ").removesuffix(" |").split(" | ", 1) for line in lines[start:] if line[:2] == "| "]
    return {row[0]: re.sub(r"`([^`]*)`", r"\1", row[1]) for row in rows if len(row) == 2 and row[0] != "|"}


def card_text(folder: Path, origin: Origin, scores: list[CardScore]) -> str:
    """The card as text."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=score.dataset,
            dataset_name=score.dataset,
            dataset_split="test",
            metric_type="accuracy",
            metric_name=f"accuracy, prompt {score.prompt}",
            metric_value=round(score.accuracy, 4),
        )
        for score in scores
    ]
    metadata = ModelCardData(
        base_model=origin.student.path if origin.student.source == "hub" else None,
        datasets=sorted({source.name for source in origin.config.data.train}),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=TAGS,
        model_name=f"{origin.config.name}, seed {origin.seed}",
        eval_results=results or None,
    )
    summary = json.loads((folder / TRAINED).read_text(encoding="utf-8"))
    return "\n".join(["---", metadata.to_yaml(), "---", "", *_body(origin, summary, scores), ""])


def _body(origin: Origin, summary: Mapping[str, Any], scores: list[CardScore]) -> Iterator[str]:
    config = origin.config
    yield f"# {config.name}, seed {origin.seed}"
    yield ""
    yield (
        f"A student of `{_name(origin.teacher)}`, trained with [MoLSAKI]({METHOD})'s tool by the objective "
        f"`{config.objective.name}` on {summary['records']:,} rationales in {summary['steps']:,} steps. It is a plain "
        "checkpoint: transformers and vLLM load it as it is."
    )
    yield ""
    yield from _usage(origin)
    yield ""
    yield from _scores(scores)
    yield ""
    yield HOW_MADE
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, value in _facts(origin, summary):
        yield f"| {name} | {value} |"


def _usage(origin: Origin) -> Iterator[str]:
    taught = objective_of(origin.config.objective).tasks
    prompts = {
        "predict": ("the bare answer", predict_prompt),
        "explain": ("a rationale and the answer", explain_prompt),
    }
    yield "## How to ask it"
    yield ""
    for task in taught:
        what, prompt = prompts[task]
        yield f"- `{json.dumps(prompt('QUESTION'))[1:-1]}` gives {what}."


def _scores(scores: list[CardScore]) -> Iterator[str]:
    yield "## Accuracy"
    yield ""
    if not scores:
        yield "Not measured yet."
        return
    yield "Greedy decoding, exact match of the parsed answer, of this student alone: other seeds score otherwise."
    yield ""
    yield "| data set | prompt | accuracy | questions |"
    yield "|---|---|---|---|"
    for score in scores:
        yield f"| {score.dataset} | {score.prompt} | {100 * score.accuracy:.1f}% | {score.questions:,} |"


def _facts(origin: Origin, summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    config = origin.config
    training = config.training
    yield "student before training", f"`{_name(origin.student)}`, {config.student.initialise} weights"
    yield "its revision", f"`{origin.student.revision}`"
    yield "teacher", f"`{_name(origin.teacher)}`"
    yield "teacher's revision", f"`{origin.teacher.revision}`"
    yield "training data", ", ".join(_source(source.name, source.split) for source in config.data.train)
    yield "rationales", f"fingerprint `{origin.rationales}`"
    if origin.attention is not None:
        yield "teacher's attention", f"cache fingerprint `{origin.attention}`"
    yield "objective", f"`{json.dumps(summary['objective'])}`"
    yield "epochs, batch, learning rate", f"{training.epochs:g}, {training.batch_size}, {training.learning_rate:g}"
    yield "seed", str(origin.seed)


def _name(model: ModelIdentity) -> str:
    return model.path if model.source == "hub" else model.name


def _source(name: str, split: str | None) -> str:
    return name if split is None else f"{name} ({split})"
