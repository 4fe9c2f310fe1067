"""`molsaki cache export`, `import`, `verify` and `gc`: what a user asks for enters, tables or JSON and a code leave.

In: the options of a command. Out: what was copied, found and done about it on stdout; damage that is left is an error,
65. A signal arrives between two blocks that are copied, so that nothing half written keeps its name.
"""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cache.exchange.addresses import is_tar
from cache.exchange.chosen import read_keys
from cache.exchange.exporting import export_space
from cache.exchange.importing import import_space
from cache.gc import Leftover, discard, leftovers, leftovers_of_store, remove
from cache.reader import AttentionStore
from cache.repair import Repair, repair
from cache.spaces import Space, space_folders
from cache.verify import commit_count, verify
from data.errors import ConfigError, DamagedCacheError, MismatchError
from pipeline.console.progress import open_progress, quieten_libraries, stdout_to_stderr
from pipeline.console.tables import print_json, size
from pipeline.store.spaces import find_folder, find_space, raise_together
from pipeline.store.tables import print_fields, print_findings, print_leftovers
from stages.runtime.progress import Progress, StopSignal
from stages.settings import AttentionEngine, Device

if TYPE_CHECKING:
    from stages.attention.against_teacher import Drift


@dataclass(frozen=True, kw_only=True)
class StoppingMeter:
    """Moves the bar, and raises `Interrupted` where a signal has asked to stop."""

    progress: Progress
    stop: StopSignal
    saved: str

    def start(self, task: str, total: int) -> None:
        """Begin a task."""
        self.progress.start(task, total)

    def advance(self, count: int = 1) -> None:
        """Count bytes, and see whether to go on."""
        self.progress.advance(count)
        self.stop.check(self.saved)


def run_export(space: str, store: Path, target: str, *, keys: Path | None, as_json: bool, quiet: bool) -> None:
    """Hand a space on, and print what the export holds."""
    chosen = None if keys is None else read_keys(keys)
    found = find_space(space, store)
    saved = "nothing, for a tar file is written as a whole" if is_tar(target) else "the files exported so far"
    with StopSignal() as stop, open_progress(quiet=quiet) as progress:
        meter = StoppingMeter(progress=progress, stop=stop, saved=saved)
        exported = export_space(found, target, keys=chosen, meter=meter)
    rows = (
        ("target", exported.target),
        ("fingerprint", exported.fingerprint),
        ("records", f"{exported.records:,} in {exported.parts:,} parts"),
        ("files", f"{exported.files:,}, {size(exported.bytes)}; {exported.written:,} written now"),
    )
    print_fields(exported, rows, as_json=as_json)


def run_import(source: str, store: Path, *, as_json: bool, quiet: bool) -> None:
    """Take a space in, and print what is new."""
    with StopSignal() as stop, open_progress(quiet=quiet) as progress:
        meter = StoppingMeter(progress=progress, stop=stop, saved="nothing, the store is as it was")
        imported = import_space(source, store, meter=meter)
    rows = (
        ("path", imported.path),
        ("fingerprint", imported.fingerprint),
        ("new records", f"{imported.records:,} in {imported.parts:,} parts, {size(imported.bytes)}"),
        ("there already", f"{imported.known:,}"),
    )
    print_fields(imported, rows, as_json=as_json)


def verify_space(
    name: str,
    store: Path,
    *,
    deep: bool,
    mend: bool,
    against_teacher: int | None,
    teacher: str | None,
    engine: AttentionEngine | None,
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
        drift = _drift(folder, teacher, against_teacher, device, engine, quiet=quiet)
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


def _drift(
    folder: Path, teacher: str, records: int, device: Device, engine: AttentionEngine | None, *, quiet: bool
) -> "Drift":
    quieten_libraries(quiet=quiet)
    from stages.attention.against_teacher import drift_from_teacher

    with stdout_to_stderr(), open_progress(quiet=quiet) as progress:
        store = AttentionStore.open(folder)
        return drift_from_teacher(store, teacher, records, device=device, progress=progress, engine=engine)


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
    raise_together(unreadable)
