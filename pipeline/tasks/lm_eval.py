"""The files of a task folder of lm-evaluation-harness: plain YAML, the questions, and four lines that find these.

In: questions with their prompts, and how a student is asked. Out: names and contents of files. Everything that the
harness would otherwise decide by itself is written out: `until`, for it becomes an empty line where it is left out,
greedy decoding without the checkpoint's preferences, no blank behind the prompt, no worked examples. The one helper in
Python is there because `data_files` in a YAML is looked for in the working directory, wherever the YAML lies; it reads
no answers.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from data.records import AnswerKind, Question
from pipeline.tasks.answers import NOT_FOUND, accepted, rule_of
from stages.evaluation import PROMPTS
from stages.settings import Task

VERSION = "0.4.13"
"""Of lm-evaluation-harness: the one that the files were tried with."""
TOO_LONG = "(the prompt is longer than the student's positions)"
"""What is accepted as the answer to a prompt that we count as wrong unasked, and the harness cuts from the left."""
HELPER = "questions.py"
HELPER_TEXT = '''\
"""Reads the questions beside this file: a path in a YAML would be taken from the working directory."""

import json
from pathlib import Path

import datasets


def read(file, **_):
    lines = Path(__file__).with_name(file).read_text(encoding="utf-8").split("\\n")
    return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines if line])}
'''


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How the questions are asked: by which prompts, up to how many tokens, and by which tokens a text ends."""

    prompts: tuple[Task, ...]
    max_tokens: int
    ends: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TaskFile:
    """One task: the questions of a data set with one kind of answers, under one prompt."""

    name: str
    dataset: str
    kind: AnswerKind
    prompt: Task


def questions_by_kind(questions: Sequence[Question]) -> dict[tuple[str, AnswerKind], list[Question]]:
    """The questions of each data set with one kind of answers, in the order in which these come up."""
    found: dict[tuple[str, AnswerKind], list[Question]] = {}
    for question in questions:
        found.setdefault((question.dataset, question.answer_kind), []).append(question)
    return found


def tasks_of(run: str, questions: Sequence[Question], asking: Asking) -> list[TaskFile]:
    """The tasks, named after run, data set and prompt; a data set with several kinds of answers has one for each."""
    groups = list(questions_by_kind(questions))
    datasets = [dataset for dataset, _ in groups]
    return [
        TaskFile(
            name="_".join((tag_of(run), _plain(dataset), *([kind] if datasets.count(dataset) > 1 else []), prompt)),
            dataset=dataset,
            kind=kind,
            prompt=prompt,
        )
        for dataset, kind in groups
        for prompt in asking.prompts
    ]


def tag_of(run: str) -> str:
    """The name by which all tasks of a run are asked for together."""
    return f"molsaki_{_plain(run)}"


def task_files(
    run: str, questions: Sequence[Question], asking: Asking, too_long: Mapping[Task, frozenset[str]]
) -> dict[str, str]:
    """Names and contents of all files but the README; `too_long` are ids of questions that a prompt has no room for."""
    files = {HELPER: HELPER_TEXT}
    for (dataset, kind), asked in questions_by_kind(questions).items():
        data = f"{_plain(dataset)}-{kind}.jsonl"
        rows = [_row(question, asking.prompts, too_long) for question in asked]
        files[data] = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        for task in tasks_of(run, questions, asking):
            if (task.dataset, task.kind) == (dataset, kind):
                files[f"{task.name}.yaml"] = _yaml(task, data, tag_of(run), asking)
    return files


def _row(question: Question, prompts: Sequence[Task], too_long: Mapping[Task, frozenset[str]]) -> dict[str, object]:
    """A question as the harness reads it: `answers_…` are the ways in which the right answer may be written."""
    asked = {f"prompt_{prompt}": PROMPTS[prompt](question.text) for prompt in prompts}
    right = {
        f"answers_{prompt}": [TOO_LONG] if question.id in too_long.get(prompt, ()) else list(accepted(question))
        for prompt in prompts
    }
    return {"dataset": question.dataset, "id": question.id, **asked, **right}


def _yaml(task: TaskFile, data: str, tag: str, asking: Asking) -> str:
    rule = rule_of(task.kind)
    content = {
        "task": task.name,
        "tag": tag,
        "custom_dataset": _Function(f"{HELPER.removesuffix('.py')}.read"),
        "dataset_kwargs": {"file": data},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": f"prompt_{task.prompt}",
        "doc_to_target": f"answers_{task.prompt}",
        "target_delimiter": "",
        "num_fewshot": 0,
        "generation_kwargs": {
            "until": list(asking.ends),
            "max_gen_toks": asking.max_tokens,
            "do_sample": False,
            "temperature": 0.0,
            "repetition_penalty": 1.0,
        },
        "filter_list": [
            {
                "name": "answer",
                "filter": [
                    {"function": "regex", "regex_pattern": rule.pattern, "group_select": 0, "fallback": NOT_FOUND},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
                "ignore_case": True,
                "regexes_to_ignore": list(rule.ignored),
            }
        ],
        "metadata": {"version": 1.0},
    }
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


class _Function(str):
    """A function beside the YAML, which the harness imports."""


class _Dumper(yaml.SafeDumper):
    """Writes `_Function` as the harness wants it."""


_Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))


def _plain(name: str) -> str:
    """A name of letters, digits and hyphens, for names of tasks are separated by commas and may hold wildcards."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "run"
