"""`molsaki cache verify` and `molsaki cache gc`: what a user asks for enters, tables or JSON and an exit code leave.

In: the options of a command. Out: findings and what was done about them on stdout; damage that is left is an error, 65.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cache.gc import Leftover, discard, leftovers, leftovers_of_store, remove
from cache.reader import AttentionStore
from cache.repair import Repair, repair
from cache.spaces import Space, space_folders
from cache.verify import Verification, commit_count, verify
from data.errors import ConfigError, DamagedCacheError, MismatchError
from pipeline.console.progress import open_progress
from pipeline.console.quiet import quieten_libraries, stdout_to_stderr
from pipeline.console.tables import print_json, size
from pipeline.store.spaces import find_folder, raise_unreadable
from pipeline.store.tables import print_findings, print_leftovers
from stages.runtime.progress import Progress
from stages.settings import Device

if TYPE_CHECKING:
    from stages.attention.against_teacher import Drift

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, kw_only=True)
class VerifyRequest:
    """What was asked of `molsaki cache verify`."""

    space: str
    store: Path
    deep: bool
    repair: bool
    against_teacher: int | None
    teacher: str | None
    device: Device
    as_json: bool
    quiet: bool


def verify_space(request: VerifyRequest) -> None:
    """Look at a space, repair it if asked, compare it with its teacher if asked; raise where damage is left."""
    if (request.against_teacher is None) != (request.teacher is None):
        raise ConfigError("--against-teacher and --teacher belong together: how many records, and which model")
    folder = find_folder(request.space, request.store)
    done: list[Repair] = []
    with open_progress(quiet=request.quiet) as progress:
        found = _verified(folder, progress, deep=request.deep or request.repair)
        if request.repair and found.findings:
            progress.start("repair", commit_count(folder))
            done = repair(folder, advance=progress.advance)
    drift = None
    left = [] if done else list(found.findings)
    if request.teacher is not None and not left:
        drift = _drift(folder, request)
    if request.as_json:
        print_json({**asdict(found), "repairs": done, "against_teacher": drift})
    else:
        print_findings(found, done, drift)
    if left:
        raise DamagedCacheError(_advice(found, request))
    if drift is not None:
        drift.check()


def _verified(folder: Path, progress: Progress, *, deep: bool) -> Verification:
    progress.start("verify", commit_count(folder))
    return verify(folder, deep=deep, advance=progress.advance)


def _advice(found: Verification, request: VerifyRequest) -> str:
    if request.repair:
        return f"{found.path}: {len(found.findings):,} findings that --repair cannot mend; each says what does"
    again = f"molsaki cache verify {shlex.quote(request.space)} --store {shlex.quote(str(request.store))} --repair"
    return (
        f"{found.path}: {len(found.findings):,} findings; `{again}` keeps the sound records and drops the others, and "
        "the next run computes just those"
    )


def _drift(folder: Path, request: VerifyRequest) -> "Drift":
    quieten_libraries(quiet=request.quiet)
    from stages.attention.against_teacher import drift_from_teacher

    assert request.teacher is not None and request.against_teacher is not None
    with stdout_to_stderr(), open_progress(quiet=request.quiet) as progress:
        return drift_from_teacher(
            AttentionStore.open(folder),
            request.teacher,
            request.against_teacher,
            device=request.device,
            progress=progress,
        )


def collect_garbage(
    spaces: Sequence[str], store: Path, *, older_than: float, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    """Remove what no commit names and nobody can be using any more; damage in one space does not keep the others."""
    folders = [find_folder(space, store) for space in spaces] if spaces else space_folders(store)
    gone: list[Leftover] = []
    unreadable: list[DamagedCacheError | MismatchError] = []
    with open_progress(quiet=quiet) as progress:
        progress.start("gc", len(folders))
        for folder in folders:
            try:
                space = Space.open(folder)
                found = leftovers(space, older_than=older_than)
                gone += found if dry_run else remove(space, found)
            except (DamagedCacheError, MismatchError) as error:
                unreadable.append(error)
            progress.advance()
        if not spaces:
            found = leftovers_of_store(store, older_than=older_than)
            gone += found if dry_run else map(discard, found)
    _print_gone(gone, dry_run=dry_run, as_json=as_json)
    damaged = any(isinstance(error, DamagedCacheError) for error in unreadable)
    raise_unreadable([str(error) for error in unreadable], damaged=damaged)


def _print_gone(gone: Sequence[Leftover], *, dry_run: bool, as_json: bool) -> None:
    total = sum(leftover.bytes for leftover in gone)
    if as_json:
        print_json({"removed": not dry_run, "bytes": total, "leftovers": gone})
        return
    print_leftovers(gone)
    click.echo(f"{len(gone):,} leftovers, {size(total)} {'would be freed' if dry_run else 'freed'}")


def read_age(text: str) -> float:
    """Read `1d`, `12h`, `30m`, `90s` or `2w` as seconds; raises `ConfigError` for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if not found:
        raise ConfigError(f"expected a number and s, m, h, d or w, such as 12h; found {text!r}")
    return float(found[1]) * SECONDS[found[2]]
