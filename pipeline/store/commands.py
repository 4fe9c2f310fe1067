"""`molsaki cache verify` and `molsaki cache gc`: what a user asks for enters, tables or JSON and an exit code leave.

In: the options of a command. Out: findings and what was done about them on stdout; damage that is left is an error, 65.
"""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cache.gc import Leftover, discard, leftovers, leftovers_of_store, remove
from cache.reader import AttentionStore
from cache.repair import Repair, repair
from cache.spaces import Space, space_folders
from cache.verify import commit_count, verify
from data.errors import ConfigError, DamagedCacheError, MismatchError
from pipeline.console.progress import open_progress
from pipeline.console.quiet import quieten_libraries, stdout_to_stderr
from pipeline.console.tables import print_json
from pipeline.store.spaces import find_folder, raise_unreadable
from pipeline.store.tables import print_findings, print_leftovers
from stages.settings import Device

if TYPE_CHECKING:
    from stages.attention.against_teacher import Drift


def verify_space(
    name: str,
    store: Path,
    *,
    deep: bool,
    mend: bool,
    against_teacher: int | None,
    teacher: str | None,
    device: Device,
    as_json: bool,
    quiet: bool,
) -> None:
    """Look at a space, repair it if asked, compare it with its teacher if asked; raise where damage is left."""
    if (against_teacher is None) != (teacher is None):
        raise ConfigError("--against-teacher and --teacher belong together: how many records, and which model")
    folder = find_folder(name, store)
    done: list[Repair] = []
    with open_progress(quiet=quiet) as progress:
        progress.start("verify", commit_count(folder))
        found = verify(folder, deep=deep or mend, advance=progress.advance)
        if mend and found.findings:
            progress.start("repair", commit_count(folder))
            done = repair(folder, advance=progress.advance)
    left, drift = bool(found.findings) and not done, None
    if teacher is not None and against_teacher is not None and not left:
        drift = _drift(folder, teacher, against_teacher, device, quiet=quiet)
    if as_json:
        print_json({**asdict(found), "repairs": done, "against_teacher": drift})
    else:
        print_findings(found, done, drift)
    if left:
        again = shlex.join(["molsaki", "cache", "verify", name, "--store", str(store), "--repair"])
        raise DamagedCacheError(f"{found.path}: {len(found.findings):,} findings" + _advice(again, mend=mend))
    if drift is not None:
        drift.check()


def _advice(again: str, *, mend: bool) -> str:
    if mend:
        return " that --repair cannot mend; each says what does"
    return f"; `{again}` keeps the sound records and drops the others, and the next run computes just those"


def _drift(folder: Path, teacher: str, records: int, device: Device, *, quiet: bool) -> "Drift":
    quieten_libraries(quiet=quiet)
    from stages.attention.against_teacher import drift_from_teacher

    with stdout_to_stderr(), open_progress(quiet=quiet) as progress:
        return drift_from_teacher(AttentionStore.open(folder), teacher, records, device=device, progress=progress)


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
    print_leftovers(gone, dry_run=dry_run, as_json=as_json)
    damaged = any(isinstance(error, DamagedCacheError) for error in unreadable)
    raise_unreadable([str(error) for error in unreadable], damaged=damaged)
