"""The card of a student: README.md in its folder, for whoever is handed the folder alone.

In: what `training.json` says of the student, its scores among it once it has been evaluated. Out: Markdown, as
`card.jinja` has it, with the hub's metadata in front. Nothing reads it again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.durable import replace_file
from data.prompts import explain_prompt, predict_prompt
from pipeline.results.folder import EvaluationFolder, StudentFolder
from pipeline.results.likelihoods import TextLikelihoods, likelihood_score, likelihoods
from pipeline.results.predictions import by_group, read_predictions
from stages.student.objective import objective_class
from stages.student.summary import Origin, read_summary, write_summary

TEMPLATE = Path(__file__).with_name("card.jinja")
TAGS = ["molsaki", "knowledge-distillation", "chain-of-thought"]
ASKED = {"predict": (predict_prompt, "the bare answer"), "explain": (explain_prompt, "a rationale and the answer")}


def add_scores(student: StudentFolder, origin: Origin, scores: list[dict[str, Any]]) -> None:
    """Say of a finished student what it scored; and where an earlier version did not, what it was made from."""
    write_summary(student.path, {**_summary(student), **origin.described(), "scores": scores})
    write_card(student)


def scores_for_card(evaluation: EvaluationFolder, seed: int) -> list[dict[str, Any]]:
    """The accuracies of one student, as shares of 1, and the log-probability of a token, in nats, where it is known."""
    predictions = read_predictions([evaluation.predictions(seed)])
    path = evaluation.likelihood(seed)
    likely = likelihoods({seed: path}) if path.exists() else {}
    return [
        {
            "dataset": dataset,
            "prompt": prompt,
            "accuracy": sum(rows["correct"]) / len(rows["correct"]),
            "questions": len(rows["correct"]),
            **_log_probability(likely.get((dataset, prompt))),
        }
        for (dataset, prompt), rows in by_group(predictions)
    ]


def _log_probability(texts: TextLikelihoods | None) -> dict[str, Any]:
    if texts is None:
        return {}
    mean = likelihood_score(texts, None).per_token
    return {"log_probability": mean.mean, "log_probability_questions": mean.questions}


def write_card(student: StudentFolder) -> None:
    """Write the card of a finished student, in place of an earlier one."""
    replace_file(student.card, card_text(_summary(student)).encode())


def card_text(summary: Mapping[str, Any]) -> str:
    """The card as text, of what training.json says."""
    from jinja2 import Environment, StrictUndefined

    title = f"{summary['run']}, seed {summary['seed']}"
    taught = summary.get("tasks") or objective_class(summary["objective"]["name"]).preset_tasks
    prompts = [(json.dumps(prompt("QUESTION"))[1:-1], what) for prompt, what in (ASKED[task] for task in taught)]
    markdown = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True, autoescape=False)  # noqa: S701  Markdown
    body = markdown.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        {"scores": [], **summary}, title=title, prompts=prompts, described=json.dumps(summary["objective"])
    )
    return f"---\n{_metadata(summary, title)}\n---\n\n{body}"


def _metadata(summary: Mapping[str, Any], title: str) -> str:
    """What the hub shows and finds a model by."""
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
    return ModelCardData(
        base_model=begun_as["model"] if begun_as["source"] == "hub" else None,
        datasets=sorted({source["name"] for source in summary["data"]}),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=TAGS,
        model_name=title,
        eval_results=results or None,
    ).to_yaml()


def _summary(student: StudentFolder) -> dict[str, Any]:
    summary = read_summary(student.path)
    assert summary is not None, student.path
    return summary
