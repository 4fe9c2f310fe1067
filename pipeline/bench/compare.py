"""Methods compared in time and memory: what the benchmarks of attention and of training share.

In: a job for the processes that measure, and which method each is compared with. Out: peaks, times, and their ratios.
Each method gets processes of its own for its peak memory, since a process never forgets its peak; a method for which
memory does not suffice is reported as such and left out of the one process in which the others then take turns for the
times. Such a process (`python -P -m MODULE TASK JOB`) writes one JSON value to its standard output.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median_low
from typing import Any, Literal, TypeAlias, TypeVar

from pydantic import TypeAdapter

from data.errors import MolsakiError
from pipeline.console.exits import StageProcessError, complain
from pipeline.console.quiet import stdout_to_stderr
from pipeline.console.tables import size
from pipeline.run.processes import stop_with_parent
from stages.bench.measure import Memory, Rounds, fastest, median, median_ratio
from stages.runtime.device import torch_device
from stages.runtime.progress import Progress
from stages.settings import Device, Dtype
from stages.toy.random_llama import Setting, Shape, check_shape

Job = TypeVar("Job")
Times = TypeVar("Times")
Status: TypeAlias = Literal["ok", "out of memory"]
OUT_OF_MEMORY: Status = "out of memory"
KILLED = -signal.SIGKILL
"""Exit code of a process to which Linux gave no more memory."""
SMALL = Shape(layers=8, width=512, heads=8, kv_heads=8)
DTYPES: Mapping[str, Dtype] = {"cpu": "float32", "cuda": "bfloat16"}
PEAKS = {"cpu": 3, "cuda": 1}
"""Processes that peak memory is the median of. Resident memory of the same work differs by some percent from process to
process, much beside the difference between two methods; what torch allocates on a GPU does not."""
OOM_SCORE = Path("/proc/self/oom_score_adj")


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

    def cells(self) -> dict[str, str]:
        """What stands in a table of it."""
        return {
            "method": self.method,
            "seconds": OUT_OF_MEMORY if self.seconds is None else f"{self.seconds:.3g}",
            "time": self._ratio(self.time_ratio),
            "peak memory": "" if self.peak_bytes is None else size(self.peak_bytes),
            "memory": self._ratio(self.memory_ratio),
        }

    def _ratio(self, ratio: float | None) -> str:
        return "" if ratio is None or self.compared_with is None else f"{ratio:.2f} × {self.compared_with}"


def compare(
    method: str, other: str | None, peaks: Mapping[Any, Sequence[Memory]], rounds: Mapping[Any, Rounds]
) -> Comparison:
    """Put a method's times and peaks beside those of `other`; what did not fit into memory is missing in `rounds`."""
    own, memory = rounds.get(method, ()), peaks[method]
    reference = rounds.get(other) if other and own else None
    return Comparison(
        method=method,
        status="ok" if own else OUT_OF_MEMORY,
        seconds=median(own) if own else None,
        peak_bytes=_median_peak(memory) if memory else None,
        baseline_bytes=median_low(one.baseline_bytes for one in memory) if memory else None,
        compared_with=other if reference else None,
        time_ratio=median_ratio(own, reference) if reference else None,
        fastest_ratio=fastest(own) / fastest(reference) if reference else None,
        memory_ratio=_median_peak(memory) / _median_peak(peaks[other]) if reference else None,
        seconds_by_round=own,
        peak_bytes_by_process=tuple(one.peak_bytes for one in memory),
    )


def _median_peak(memory: Sequence[Memory]) -> int:
    return median_low(one.peak_bytes for one in memory)


# What is measured -------------------------------------------------------------------------------------------------
def device_of(device: Device) -> Literal["cpu", "cuda"]:
    """What `auto` is here; `ConfigError` for a GPU that is not there."""
    return "cuda" if torch_device(device).type == "cuda" else "cpu"


def shape_of(
    preset: Shape | None, *, layers: int | None, width: int | None, heads: int | None, kv_heads: int | None
) -> Shape:
    """The preset or the small default, with what was said in so many words; heads alone mean as many of both kinds.

    Raises `ConfigError` where no model of this shape exists.
    """
    options = {"layers": layers, "width": width, "heads": heads, "kv_heads": kv_heads or heads}
    shape = replace(preset or SMALL, **{name: value for name, value in options.items() if value is not None})
    check_shape(shape)
    return shape


def setting_line(setting: Setting, what: str, details: str) -> str:
    """What was measured on, below a table."""
    heads = f"{setting.heads} heads" + (f" ({setting.kv_heads} kv)" if setting.kv_heads != setting.heads else "")
    where = setting.device if setting.device != "cpu" else f"cpu, {setting.threads} threads"
    return (
        f"{what} of {setting.layers} layers, width {setting.width}, {heads}; {details}; {where}; "
        f"torch {setting.torch}, transformers {setting.transformers}"
    )


# Processes that measure -------------------------------------------------------------------------------------------
def take_peaks(measure: Callable[[], object], processes: int, progress: Progress) -> list[Memory]:
    """Memory of a method in each of its processes; none where one runs out of it, by an error or by being killed."""
    found: list[Memory] = []
    for _ in range(processes):
        try:
            memory = TypeAdapter(Memory | None).validate_python(measure())
        except StageProcessError as error:
            if error.code != KILLED:
                raise
            progress.advance()
            memory = None
        if memory is None:
            return []
        found.append(memory)
    return found


def take_times(measure: Callable[[], object], kind: type[Times], methods: Sequence[str], smaller: str) -> Times:
    """The times of all methods that fit; where their process is killed, the error names the option `smaller`."""
    try:
        return TypeAdapter(kind).validate_python(measure())
    except StageProcessError as error:
        if error.code != KILLED:
            raise
        raise MolsakiError(
            f"bench: the process that took the times of {', '.join(methods)} was killed, most likely for want of "
            f"memory; take a smaller {smaller}, or leave one out with --methods"
        ) from error


def answer(
    task: str, peak: Callable[[], Any], times: Callable[[Callable[[], object]], Any], say: Callable[[str], object]
) -> None:
    """In the process that measures: do the task `memory` or `times`, saying a line for each piece of it."""
    assert task in {"memory", "times"}, task
    if task == "memory":
        found = peak()
        say("{}")
    else:
        found = times(lambda: say("{}"))
    say(json.dumps({"result": None if found is None else asdict(found)}))


def serve_job(
    arguments: Sequence[str], kind: type[Job], do_task: Callable[[str, Job, Callable[[str], object]], object]
) -> int:
    """Measure what a `run_process` asked for, and return the exit code."""
    return serve(arguments, lambda task, job, say: do_task(task, TypeAdapter(kind).validate_json(job), say))


def run_process(module: str, task: str, job: str, advance: Callable[[], object]) -> object:
    """Do `task` in a process of its own and return its result as JSON gives it; `StageProcessError` where it fails.

    As in `pipeline.run.processes`, the process stands in a group of its own and ends when its standard input does; it
    has nothing to save, so where we are interrupted it is killed.
    """
    command = [sys.executable, "-P", "-m", module, task, job]
    result = None
    with subprocess.Popen(  # noqa: S603  our own command
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0, encoding="utf-8"
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                result = json.loads(line)
                if not result:
                    advance()
            code = process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with what it has started itself: vLLM has processes
    if code:
        raise StageProcessError(code)
    assert isinstance(result, dict)
    return result["result"]


def serve(arguments: Sequence[str], do_task: Callable[[str, str, Callable[[str], object]], object]) -> int:
    """The other end: let `do_task` (task, job, say) measure and return the exit code; an error is one line."""
    task, job = arguments
    stop_with_parent()
    prefer_to_be_killed()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out, stdout_to_stderr():
        try:
            do_task(task, job, lambda line: print(line, file=out, flush=True))
        except MolsakiError as error:
            complain(str(error))
            return error.exit_code
    return 0


def prefer_to_be_killed() -> None:
    """Where memory ends, Linux shall end this process and not somebody else's."""
    if os.access(OOM_SCORE, os.W_OK):
        OOM_SCORE.write_text("1000", encoding="ascii")
