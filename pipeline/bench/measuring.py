"""Processes that measure: a task and its job as JSON enter one, one JSON value leaves it.

What is measured gets a process of its own, since a process never forgets its peak memory, its imports and its warm
caches. Such a process (`python -P -m MODULE TASK JOB`) writes one JSON object a line to stdout, an empty one for each
piece of work done, the last with the result. No torch is imported here: it would weigh in what is measured.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from data.errors import MolsakiError
from pipeline.console.exits import StageProcessError, complain
from pipeline.console.quiet import stdout_to_stderr
from pipeline.run.supervise import stop_with_parent

OOM_SCORE = Path("/proc/self/oom_score_adj")


def run_process(module: str, task: str, job: str, advance: Callable[[], object]) -> object:
    """Do `task` in a process of its own and return its result as JSON gives it; `StageProcessError` where it fails.

    As in `pipeline.run.supervise`, the process stands in a group of its own and ends when its standard input does; it
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
