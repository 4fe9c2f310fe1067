"""What the processes of `molsaki bench cache` run; torch is imported by those only that need it.

In: a task and its job, from `pipeline.bench.measuring`. Out: the result as JSON.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Literal, TypeAlias, get_args

from pydantic import TypeAdapter

from pipeline.bench.compare import run_process, serve

MODULE = "pipeline.bench.cache_process"
Task: TypeAlias = Literal[
    "write",
    "cold-store",
    "cold-memory-map",
    "cold-torch-save",
    "cold-torch-save-float16",
    "read",
    "write-index",
    "open-index",
]


def run_task(task: Task, job: object, advance: Callable[[], object] = lambda: None) -> object:
    """Do `task` in a process of its own and return its result."""
    return run_process(MODULE, task, TypeAdapter(type(job)).dump_json(job).decode(), advance)


def do_task(task: str, job: str, say: Callable[[str], object]) -> None:
    """Do `task` here: say `{}` for each piece of work done, and the result in the end."""
    assert task in get_args(Task), task
    measure = _measure_index if task.endswith("-index") else _measure_records
    say(json.dumps({"result": measure(task, job, lambda: say("{}"))}))


def _measure_index(task: str, job: str, after_each: Callable[[], object]) -> object:
    from stages.bench.cache import IndexJob, open_index, write_index

    found = TypeAdapter(IndexJob).validate_json(job)
    return write_index(found, after_each=after_each) if task == "write-index" else asdict(open_index(found))


def _measure_records(task: str, job: str, after_each: Callable[[], object]) -> object:
    from stages.bench.cache import METHODS, Job, measure_cold, measure_reading, measure_writing

    found = TypeAdapter(Job).validate_json(job)
    if task == "write":
        return asdict(measure_writing(found, after_each=after_each))
    if task == "read":
        return asdict(measure_reading(found, after_each=after_each))
    (method,) = (method for method in METHODS if task == f"cold-{method}")
    return asdict(measure_cold(found, method))


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], do_task))
