"""The report at the end of `molsaki run`: written where it is older than what it shows, left alone where it is not.

In: the folder of a run that has ended, and the spaces of its stage one. Out: `report.html` in that folder, and
a line that says so. Where nothing was done, nothing is imported that reads results or draws pages.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from tempfile import NamedTemporaryFile

from pipeline.results.folder import RunFolder

log = logging.getLogger(__name__)
PROGRAM = [Path(__file__).parents[2] / room for room in ("data", "cache", "stages", "pipeline")]
"""This program: another version may show the same otherwise."""


def report_at_end(folder: Path, spaces: Sequence[Path], say: Callable[[str], None]) -> None:
    """Write the report of a run that has just ended, unless one is there that is newer than all that it shows.

    It shows what lies in the run's folder and in the `spaces` of its stage one. It is dated by when reading for it
    began, so that what changes meanwhile is newer. A run that took hours does not fail by it: `say` says why not.
    """
    report = RunFolder(folder).report
    try:
        if not is_current(report, folder, spaces):
            from pipeline.views.report import write_report  # jinja2 and all that reads a run

            with NamedTemporaryFile(dir=folder) as now:  # by the clock of the disk, which may be another one's
                began = Path(now.name).stat().st_mtime_ns
            write_report([str(folder)], folder.parent)
            os.utime(report, ns=(began, began))
        say(f"{report} shows the run on one page")
    except Exception as error:  # whatever it is, the log has its traceback, and `molsaki report` will meet it again
        log.warning("no report of %s", folder, exc_info=True)
        say(f"warning: no report was written: {error}; try: molsaki report {folder}")


def is_current(report: Path, folder: Path, spaces: Sequence[Path]) -> bool:
    """Whether a report is newer than the run's folder without its logs, than the spaces, and than this program."""
    if not report.is_file():
        return False
    dated, logs = report.stat().st_mtime_ns, set(RunFolder(folder).logs())
    in_folder = (path for path in folder.iterdir() if path != report and path not in logs)
    everything = chain.from_iterable(map(_below, (*in_folder, *spaces, *PROGRAM)))
    # The time of the last change of any kind: a file that is copied here may bring an older date of its own.
    return all(path.lstat().st_ctime_ns < dated for path in everything)


def _below(path: Path) -> Iterator[Path]:
    """A file, or a folder and everything in it but what Python keeps there."""
    yield path
    for root, folders, files in os.walk(path):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(root, name) for name in (*folders, *files))
