"""Benchmarks: tasks that are measured in processes of their own, what came of them side by side, and the table.

In: tasks, which are functions of `stages.bench`, with a job for them; which method is compared with which; columns.
Out: peaks, times and their ratios, as a table or JSON. Each method gets processes of its own for its peak memory, since
a process never forgets its peak; a method for which memory does not suffice is reported as such and left out of the one
process in which the others then take turns for the times.

This module is also what such a process runs (`python -P -m pipeline.bench.compare MODULE:FUNCTION ARGUMENTS`): one JSON
value leaves on its standard output. It imports no torch, so that a task that needs none, such as opening a store, does
not have it in its figures.
"""

import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median_low
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast, get_type_hints

import click
from pydantic import TypeAdapter, validate_call
from pydantic_core import to_json

from data.errors import ConfigError, Interrupted, MolsakiError
from pipeline.console import tables
from pipeline.console.exits import StageProcessError, complain
from pipeline.console.progress import open_progress, stdout_to_stderr
from pipeline.console.tables import print_json, size
from pipeline.run.processes import stop_with_parent
from stages.bench.measure import Memory, Rounds, fastest, median, median_ratio, nothing, rounds_of
from stages.runtime.progress import Progress, StopSignal
from stages.settings import Device, Dtype

if TYPE_CHECKING:
    from stages.bench.attention import MethodsJob, Times
    from stages.toy.random_llama import Setting, Shape

J = TypeVar("J", bound="MethodsJob")
R = TypeVar("R")
Row: TypeAlias = Mapping[str, Any]
"""One method on one case, as it goes to machines."""
Column: TypeAlias = tuple[str, Callable[[Row], str]]
"""A heading, and what people see of a row below it."""
DTYPES: Mapping[str, Dtype] = {"cpu": "float32", "cuda": "bfloat16"}
Status: TypeAlias = Literal["ok", "out of memory"]
OUT_OF_MEMORY: Status = "out of memory"
KILLED = -signal.SIGKILL
"""Exit code of a process to which Linux gave no more memory."""
PEAKS = {"cpu": 3, "cuda": 1}
"""Processes that peak memory is the median of. Resident memory of the same work differs by some percent from process to
process, much beside the difference between two methods; what torch allocates on a GPU does not."""
OOM_SCORE = Path("/proc/self/oom_score_adj")


# What is measured -------------------------------------------------------------------------------------------------
def with_model(
    presets: "Mapping[str | None, Shape]",
    *,
    preset: str | None = None,
    device: Device,
    dtype: Dtype | None,
    **options: Any,  # click's own types
) -> dict[str, Any]:
    """What a job on a random model is made with: shape, device and number format stand in for the options of them.

    The shape is the preset with what was said in so many words; heads alone mean as many of both kinds. Raises
    `ConfigError` where no model of this shape exists, and for a GPU that is not there.
    """
    from stages.runtime.device import torch_device
    from stages.toy.random_llama import Shape, check_shape

    said = {field.name: options.pop(field.name) for field in fields(Shape)}
    said["kv_heads"] = said["kv_heads"] or said["heads"]
    shape = replace(presets[preset], **{name: value for name, value in said.items() if value is not None})
    check_shape(shape)
    place = torch_device(device).type
    return {**options, "shape": shape, "device": place, "dtype": dtype or DTYPES[place]}


@dataclass(frozen=True, kw_only=True)
class Benchmark(Generic[J]):
    """Methods that take turns on a job: the tasks that measure them, and which method is put beside which.

    Those in `most_rounds` take part in so many rounds at most, and `slow` are those whose memory one process will do
    for. Where the process that takes the times is killed, the error names the option `smaller`.
    """

    peak: Callable[[J], Memory | None]
    times: "Callable[..., Times]"
    most_rounds: Mapping[Any, int]
    compared_with: Mapping[Any, str | None]
    slow: Collection[str] = ()
    smaller: str

    def compare(self, title: str, job: J, progress: Progress) -> "tuple[list[Comparison], Times | None]":
        """Peak memory of each method, then the times of those that fit."""
        processes = {method: 1 if method in self.slow else PEAKS[job.device] for method in job.methods}
        rounds = rounds_of(job.methods, job.repeats, self.most_rounds)
        progress.start(title, sum(processes.values()) + len(job.methods) + sum(map(len, rounds.values())))
        peaks = {}
        for method in job.methods:
            peaks[method] = self._peaks(replace(job, methods=(method,)), processes[method], progress)
            if not peaks[method]:
                progress.note(f"{title}: {method} runs out of memory")
        fitting = replace(job, methods=tuple(method for method, memory in peaks.items() if memory))
        times = self._times(fitting, progress) if fitting.methods else None
        found = times.rounds if times else {}
        return [compared(method, self.compared_with.get(method), peaks, found) for method in job.methods], times

    def _peaks(self, job: J, processes: int, progress: Progress) -> list[Memory]:
        """Memory in each process; none where one runs out of it, by an error or by being killed."""
        found: list[Memory] = []
        for _ in range(processes):
            try:
                memory = run_process(self.peak, job, advance=progress.advance)
            except StageProcessError as error:
                if error.code != KILLED:
                    raise
                progress.advance()
                memory = None
            if memory is None:
                return []
            found.append(memory)
        return found

    def _times(self, job: J, progress: Progress) -> "Times":
        try:
            return run_process(self.times, job, advance=progress.advance)
        except StageProcessError as error:
            if error.code != KILLED:
                raise
            raise MolsakiError(
                f"bench: the process that took the times of {', '.join(job.methods)} was killed, most likely for want "
                f"of memory; take a smaller {self.smaller}, or leave one out with --methods"
            ) from error


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One method on one case. Numbers are None where memory did not suffice, or where there is nothing to compare.

    Ratios are against `compared_with`: `time_ratio` is the median of the ratios round by round, `fastest_ratio` that of
    the fastest rounds, which is less touched by whatever else a machine does, `memory_ratio` that of the peaks.
    """

    method: str
    status: Status
    seconds: float | None
    peak_bytes: int | None
    baseline_bytes: int | None
    compared_with: str | None
    time_ratio: float | None
    fastest_ratio: float | None
    memory_ratio: float | None
    seconds_by_round: Rounds
    peak_bytes_by_process: tuple[int, ...]

    def per_second(self, count: int) -> float | None:
        """Of `count` things in a run, how many a second."""
        return count / self.seconds if self.seconds else None


def compared(
    method: str, other: str | None, peaks: Mapping[str, Sequence[Memory]], rounds: Mapping[str, Rounds]
) -> Comparison:
    """Put a method's times and peaks beside those of `other`; what did not fit into memory is missing in `rounds`."""
    own, memory = rounds.get(method, ()), median_memory(peaks[method])
    reference = rounds.get(other) if other and own else None
    return Comparison(
        method=method,
        status="ok" if own else OUT_OF_MEMORY,
        seconds=median(own) if own else None,
        **memory,
        compared_with=other if reference else None,
        time_ratio=median_ratio(own, reference) if reference else None,
        fastest_ratio=fastest(own) / fastest(reference) if reference else None,
        memory_ratio=memory["peak_bytes"] / median_memory(peaks[other])["peak_bytes"] if reference and other else None,
        seconds_by_round=own,
    )


def median_memory(found: Sequence[Memory]) -> dict[str, Any]:
    """Memory of the same work in several processes, as a row says it."""
    return {
        "peak_bytes": median_low(one.peak_bytes for one in found) if found else None,
        "baseline_bytes": median_low(one.baseline_bytes for one in found) if found else None,
        "peak_bytes_by_process": tuple(one.peak_bytes for one in found),
    }


# What is printed --------------------------------------------------------------------------------------------------
def print_rows(
    rows: Sequence[Row], columns: Sequence[Column], setting: Mapping[str, object], line: str, *, as_json: bool
) -> None:
    """Print a line for each row and one of the setting; for machines the setting's fields beside those of each row."""
    if as_json:
        print_json([{**setting, **row} for row in rows])
        return
    tables.print_rows([heading for heading, _ in columns], ([cell(row) for _, cell in columns] for row in rows))
    if line:
        click.echo(line)


def print_comparisons(
    rows: Sequence[Row], columns: Sequence[Column], setting: "Setting | None", what: str, details: str, *, as_json: bool
) -> None:
    """As `print_rows`; the setting, of a random model, is not known where memory sufficed for no method."""
    from stages.toy.random_llama import Setting

    if setting is None:
        print_rows(rows, columns, dict.fromkeys(Setting.__annotations__), "", as_json=as_json)
        return
    heads = f"{setting.heads} heads" + (f" ({setting.kv_heads} kv)" if setting.kv_heads != setting.heads else "")
    where = setting.device if setting.device != "cpu" else f"cpu, {setting.threads} threads"
    line = (
        f"{what} of {setting.layers} layers, width {setting.width}, {heads}; {details}; {where}; "
        f"torch {setting.torch}, transformers {setting.transformers}"
    )
    print_rows(rows, columns, asdict(setting), line, as_json=as_json)


def number(heading: str, field: str, form: str = "") -> Column:
    """A column of numbers or texts in some format; nothing where there is none."""
    return heading, lambda row: "" if row[field] is None else format(row[field], form)


def ratio(heading: str, field: str, form: str = ".2f") -> Column:
    """A column that says how a method stands to the one that it is compared with."""
    return heading, lambda row: "" if row[field] is None else f"{row[field]:{form}} × {row['compared_with']}"


def amount(heading: str, field: str) -> Column:
    """A column of bytes."""
    return heading, lambda row: "" if row[field] is None else size(row[field])


def comparison_columns(seconds: str, difference: str) -> list[Column]:
    """The columns of what `Comparison` holds."""
    return [
        number("method", "method"),
        (seconds, lambda row: OUT_OF_MEMORY if row["seconds"] is None else f"{row['seconds']:.3g}"),
        number("records/s", "records_per_second", ".3g"),
        ratio("time", "time_ratio"),
        amount("peak memory", "peak_bytes"),
        ratio("memory", "memory_ratio"),
        number("difference", difference, ".1e"),
    ]


# Processes that measure -------------------------------------------------------------------------------------------
class _StopAtOnce(StopSignal):
    """Raises `Interrupted` wherever a signal arrives: there is nothing to save."""

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        for each in self.SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # a second one must not keep the folder from being removed
        raise Interrupted(f"stopped by {signal.Signals(number).name}; run the same command to measure again")


@contextmanager
def measuring_in_a_folder(out: Path | None, *, quiet: bool) -> Iterator[tuple[Progress, Path]]:
    """Progress, and a new folder below `out`, or where the system has its temporary files.

    The folder is removed in the end, also after errors and after a signal that asks to stop.
    """
    if out is not None and not out.is_dir():
        raise ConfigError(f"--out {out}: no such folder; make it, or leave out --out")

    temporary = partial(tempfile.TemporaryDirectory, "", "molsaki-bench-", out)
    with _StopAtOnce(), open_progress(quiet=quiet) as progress, temporary() as folder:
        yield progress, Path(folder)


def run_process(task: Callable[..., R], *arguments: object, advance: Callable[[], object] = nothing) -> R:
    """Do `task` in a process of its own and return its result; `StageProcessError` where it fails.

    As in `pipeline.run.processes`, the process stands in a group of its own and ends when its standard input does; it
    has nothing to save, so where we are interrupted it is killed. `advance` is called for each piece that is done.
    """
    command = [sys.executable, "-P", "-m", "pipeline.bench.compare", *written_out(task, arguments)]
    answer = None
    with subprocess.Popen(  # noqa: S603  our own command
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0, encoding="utf-8"
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                answer = json.loads(line)
                if not answer:
                    advance()
            code = process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with what it has started itself: vLLM has processes
    if code:
        raise StageProcessError(code)
    return read_result(task, answer)


def written_out(task: Callable[..., object], arguments: Sequence[object]) -> tuple[str, str]:
    """A task and its arguments for `do_task`."""
    return f"{task.__module__}:{task.__name__}", to_json(arguments).decode()


def read_result(task: Callable[..., R], answer: Any) -> R:
    """What a task has returned, of the last line that `do_task` said."""
    return cast(R, TypeAdapter(get_type_hints(task)["return"]).validate_python(answer["result"]))


def do_task(name: str, arguments: str, say: Callable[[str], object]) -> None:
    """The other end of `run_process`: do a task here, and say `{}` for each piece of it and its result in the end."""
    module, _, function = name.partition(":")
    task, done = getattr(import_module(module), function), partial(say, "{}")
    watched = {"after_each": done} if "after_each" in inspect.signature(task).parameters else {}
    found = validate_call(task)(*json.loads(arguments), **watched)
    if not watched:
        done()
    say(to_json({"result": found}).decode())


def serve(arguments: Sequence[str]) -> int:
    """Do the task that a `run_process` asked for, and return the exit code; an error is one line."""
    name, given = arguments
    stop_with_parent()
    prefer_to_be_killed()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out, stdout_to_stderr():
        try:
            do_task(name, given, lambda line: print(line, file=out, flush=True))
        except MolsakiError as error:
            complain(str(error))
            return error.exit_code
    return 0


def prefer_to_be_killed() -> None:
    """Where memory ends, Linux shall end this process and not somebody else's; psutil cannot say so."""
    if os.access(OOM_SCORE, os.W_OK):
        OOM_SCORE.write_text("1000", encoding="ascii")


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:]))
