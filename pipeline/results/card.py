"""The card of a student: README.md in its folder, for whoever is handed the folder alone.

In: what `training.json` says of the student, its scores among it once it has been evaluated. Out: Markdown with the
hub's metadata in front. Nothing reads it again.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cache.durable import replace_file
from data.prompts import explain_prompt, predict_prompt
from pipeline.results.folder import StudentFolder
from pipeline.results.predictions import read_predictions
from stages.settings import ObjectiveSettings
from stages.student.objective import objective_of
from stages.student.summary import Origin, read_summary, write_summary

TAGS = ["molsaki", "knowledge-distillation", "chain-of-thought"]
METHOD = "https://arxiv.org/abs/2604.15701"
Summary = Mapping[str, Any]
"""What training.json says."""


def add_scores(student: StudentFolder, origin: Origin, scores: list[dict[str, Any]]) -> None:
    """Say of a finished student what it scored; and where an earlier version did not, what it was made from."""
    summary = read_summary(student.path)
    assert summary is not None, student.path
    write_summary(student.path, {**summary, **origin.described(), "scores": scores})
    write_card(student)


def scores_for_card(predictions: Path) -> list[dict[str, Any]]:
    """The accuracies of one student, as shares of 1, in the file of its answers."""
    groups = read_predictions([predictions]).groupby(["dataset", "prompt"], sort=False)["correct"]
    return [
        {"dataset": str(dataset), "prompt": str(prompt), "accuracy": float(rows.mean()), "questions": len(rows)}
        for (dataset, prompt), rows in groups
    ]


def write_card(student: StudentFolder) -> None:
    """Write the card of a finished student, in place of an earlier one."""
    summary = read_summary(student.path)
    assert summary is not None, student.path
    replace_file(student.card, card_text(summary).encode())


def card_text(summary: Summary) -> str:
    """The card as text."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=score["dataset"],
            dataset_name=score["dataset"],
            dataset_split="test",
            metric_type="accuracy",
            metric_name=f"accuracy, prompt {score['prompt']}",
            metric_value=round(score["accuracy"], 4),
        )
        for score in summary.get("scores", ())
    ]
    begun_as = summary["student"]
    metadata = ModelCardData(
        base_model=begun_as["model"] if begun_as["source"] == "hub" else None,
        datasets=sorted({source["name"] for source in summary["data"]}),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=TAGS,
        model_name=_title(summary),
        eval_results=results or None,
    )
    return "\n".join(["---", metadata.to_yaml(), "---", "", *_body(summary), ""])


def _title(summary: Summary) -> str:
    return f"{summary['run']}, seed {summary['seed']}"


def _body(summary: Summary) -> Iterator[str]:
    yield f"# {_title(summary)}"
    yield ""
    yield (
        f"A student of `{summary['teacher']['model']}`, trained with [MoLSAKI]({METHOD})'s tool by the objective "
        f"`{summary['objective']['name']}` on {summary['records']:,} rationales in {summary['steps']:,} steps. It is a "
        "plain checkpoint: transformers and vLLM load it as it is."
    )
    yield ""
    yield from _usage(summary)
    yield ""
    yield from _scores(summary)
    yield ""
    yield "## How it was made"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, value in _facts(summary):
        yield f"| {name} | {value} |"


def _usage(summary: Summary) -> Iterator[str]:
    taught = objective_of(ObjectiveSettings(name=summary["objective"]["name"])).tasks
    prompts = {
        "predict": ("the bare answer", predict_prompt),
        "explain": ("a rationale and the answer", explain_prompt),
    }
    yield "## How to ask it"
    yield ""
    for task in taught:
        what, prompt = prompts[task]
        yield f"- `{json.dumps(prompt('QUESTION'))[1:-1]}` gives {what}."


def _scores(summary: Summary) -> Iterator[str]:
    yield "## Accuracy"
    yield ""
    if not summary.get("scores"):
        yield "Not measured yet."
        return
    yield "Greedy decoding, exact match of the parsed answer, of this student alone: other seeds score otherwise."
    yield ""
    yield "| data set | prompt | accuracy | questions |"
    yield "|---|---|---|---|"
    for score in summary["scores"]:
        yield f"| {score['dataset']} | {score['prompt']} | {100 * score['accuracy']:.1f}% | {score['questions']:,} |"


def _facts(summary: Summary) -> Iterator[tuple[str, str]]:
    student, teacher, training = summary["student"], summary["teacher"], summary["training"]
    yield "student before training", f"`{student['model']}`, {student['initialise']} weights"
    yield "its revision", f"`{student['revision']}`"
    yield "teacher", f"`{teacher['model']}`"
    yield "teacher's revision", f"`{teacher['revision']}`"
    yield "training data", ", ".join(f"{source['name']} ({source['split']})" for source in summary["data"])
    yield "rationales", f"fingerprint `{summary['rationales']}`"
    if summary["attention"] is not None:
        yield "teacher's attention", f"cache fingerprint `{summary['attention']}`"
    yield "objective", f"`{json.dumps(summary['objective'])}`"
    rate = f"{training['epochs']:g}, {training['batch_size']}, {training['learning_rate']:g}"
    yield "epochs, batch, learning rate", rate
    yield "seed", str(summary["seed"])
