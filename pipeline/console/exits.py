"""From errors to exit codes: the one place where an exception becomes a line on stderr and a number.

In: whatever a command raises. Out: one `error: …` line for each problem and the code of the error's family (0 done,
1 failed, 2 wrong usage or configuration, 65 damaged data, 75 stopped after saving). An exception that is none of
ours is a bug or the machine's trouble: one line, and the traceback in a log file whose place the line names. For a full
disk that line says which one, and how to go on; for a folder that a user names and the system refuses, which and why.
"""

import errno
import logging
import os
import select
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from cache.durable import DISK_FULL
from data.errors import ConfigError, Interrupted, MolsakiError
from pipeline.console.logs import log_file, log_without_run, record_exception
from stages.runtime.early import STOPPED

log = logging.getLogger(__name__)
STDOUT, STDERR = 1, 2


@dataclass(kw_only=True)
class Invocation:
    """What is known about this call of the command line; the log becomes the run's as soon as there is a run."""

    debug: bool = False
    log: Path | None = None


class StageProcessError(Exception):
    """A stage's process ended with `code` and has said why; there is nothing to add."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a stage ended with exit code {code}")
        self.code = code


class ErrorsToExitCodes(click.Group):
    """A command group that ends with our exit codes instead of tracebacks."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; only here are errors turned into exit codes."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except StageProcessError as error:
            ctx.exit(error.code)
        except BrokenPipeError as error:
            if not _end_output():
                _unexpected(ctx, error)
            ctx.exit(MolsakiError.exit_code)
        except (KeyboardInterrupt, click.Abort):
            complain(STOPPED)
            ctx.exit(Interrupted.exit_code)
        except MolsakiError as error:
            if ctx.ensure_object(Invocation).log is not None:
                _write_down(ctx, error)
            _explain(ctx, error, str(error))
            ctx.exit(error.exit_code)
        except Exception as error:
            _unexpected(ctx, error)
            ctx.exit(MolsakiError.exit_code)


@contextmanager
def command_log(path: Path) -> Iterator[None]:
    """`log_file` for a command, which becomes its first line; an error that ends the command later goes there too."""
    with folder_of(f"the run's folder {path.parent}", "name another place by --runs"):
        path.parent.mkdir(parents=True, exist_ok=True)
    click.get_current_context().ensure_object(Invocation).log = path
    with log_file(path):
        log.info("command: %s", shlex.join(sys.argv))
        yield


@contextmanager
def folder_of(name: str, remedy: str) -> Iterator[None]:
    """Say that the folder called `name` cannot be written, and the `remedy`, where the system refuses it inside.

    A full disk stays what it is, for that has a line of its own.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, MolsakiError) or error.errno in DISK_FULL:
            raise
        reason = f"{error.strerror or error}: {error.filename}"
        raise ConfigError(f"{name} cannot be written ({reason}); {remedy}") from error


def require_writable(folder: Path) -> None:
    """Raise `OSError` where nothing can be written into a folder that is there."""
    if not os.access(folder, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def complain(message: str) -> None:
    """Print each line of `message` in red, as an error of its own unless it is indented."""
    for line in message.splitlines() or [""]:
        click.secho(line if line.startswith(" ") else f"error: {line}", fg="red", err=True)


def describe_failure(error: Exception, log: Path) -> str:
    """One line about an error that does not end the command, with its traceback in `log` but where the disk is full."""
    if (full := _full_disk(error)) is not None:
        return _describe_full_disk(full, log)
    record_exception(log, error)
    return str(error) if isinstance(error, MolsakiError) else f"{_one_line(error)} (traceback: {log})"


def _unexpected(ctx: click.Context, error: Exception) -> None:
    """One line about an error that is none of ours."""
    if (full := _full_disk(error)) is not None:
        _explain(ctx, error, _describe_full_disk(full, ctx.ensure_object(Invocation).log))
    else:
        _explain(ctx, error, f"{_one_line(error)} (traceback: {_write_down(ctx, error)})")


def _end_output() -> bool:
    """Whether nobody reads our output any more, as behind `| head`; what is still to come then goes nowhere."""
    gone = [number for number in (STDOUT, STDERR) if _has_no_reader(number)]
    for number in gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return bool(gone)


def _has_no_reader(number: int) -> bool:
    looks = select.poll()
    looks.register(number, 0)
    return any(event & select.POLLERR for _, event in looks.poll(0))


def _explain(ctx: click.Context, error: Exception, message: str) -> None:
    if ctx.ensure_object(Invocation).debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    complain(message)


def _full_disk(error: BaseException) -> BaseException | None:
    """The first error in the chain behind `error` that says the disk is full; None where it was something else.

    Libraries in native code (safetensors, torch) put the system's words into errors of their own.
    """
    found, seen = None, set[int]()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        if (isinstance(each, OSError) and each.errno in DISK_FULL) or os.strerror(errno.ENOSPC) in str(each):
            found = each
        each = each.__cause__ or each.__context__
    return found


def _describe_full_disk(error: BaseException, log: Path | None) -> str:
    """One line: which disk is full, what is safe, and how to go on. No log is written, for it may lie on that disk."""
    named = error.filename if isinstance(error, OSError) else None
    place = named or (None if log is None else log.parent) or "the disk that was written to (--debug shows where)"
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else os.strerror(errno.ENOSPC)
    return f"{place}: {reason.lower()}; what was committed is kept: make space there and run the same command to go on"


def _one_line(error: Exception) -> str:
    """Type and first line of an unexpected error."""
    message = str(error).strip().splitlines()
    return f"{type(error).__name__}: {message[0]}" if message else type(error).__name__


def _write_down(ctx: click.Context, error: Exception) -> str:
    """Put the traceback into the log and say where that is; on stderr if the log cannot be written."""
    log = ctx.ensure_object(Invocation).log or log_without_run()
    try:
        record_exception(log, error)
    except OSError as trouble:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
        return f"above; {log} cannot be written: {trouble}"
    return str(log)
