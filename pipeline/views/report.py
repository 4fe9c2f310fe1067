"""`molsaki report`: runs on one page that can be passed on.

In: runs by name or folder, a matrix as all its points. Out: one HTML file, and its path on stdout; for machines path
and all figures. The same folders give the same file, byte by byte.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import click

from data.errors import ConfigError
from pipeline.console.tables import print_json
from pipeline.results.folder import RunFolder
from pipeline.results.scores import base_of, folder_of, run_folders
from pipeline.views.page import write_page
from pipeline.views.report_page import report_page
from pipeline.views.run_figures import Figures, read_figures

log = logging.getLogger(__name__)
PROGRAM = [Path(__file__).parents[2] / room for room in ("data", "cache", "stages", "pipeline")]


def write_report(runs: Sequence[str], root: Path, *, out: Path | None = None, base: str | None = None) -> Path:
    """Write the report of `runs` and return its path: `out`, or `report.html` in the folder of the one run."""
    return _write(runs, root, out, base)[0]


def report_at_end(folder: Path, spaces: Sequence[Path], say: Callable[[str], None]) -> None:
    """Write the report of a run that has just ended, unless one is there that is newer than all that it shows.

    It shows what lies in the run's folder and in the `spaces` of its stage one. It is dated by when reading for it
    began, so that what changes meanwhile is newer. A run that took hours does not fail by it: `say` says why not.
    """
    report = RunFolder(folder).report
    try:
        if not is_current(report, folder, spaces):
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


def report_runs(runs: Sequence[str], root: Path, *, out: Path | None, base: str | None, as_json: bool) -> None:
    """Write the report and print where it is."""
    path, figures = _write(runs, root, out, base)
    if as_json:
        print_json({"path": path, **_plain(figures)})
    else:
        click.echo(path)


def _write(runs: Sequence[str], root: Path, out: Path | None, base: str | None) -> tuple[Path, Figures]:
    named = None if base is None else base_of(base, list(run_folders(runs, root)))
    figures = read_figures(runs, root, named)
    path = out or _default_path(runs, root)
    if path.is_dir():
        raise ConfigError(f"--out {path}: is a folder; name a file in it, such as {RunFolder(path).report}")
    write_page(path, report_page(figures, [Path(run).resolve().name for run in runs]))
    return path, figures


def _default_path(runs: Sequence[str], root: Path) -> Path:
    """In the folder of a single run or matrix; of several beside their folders, named after them."""
    folders = [folder_of(run, root) for run in runs]
    if len(folders) == 1:
        return RunFolder(folders[0]).report
    names = "-".join(folder.resolve().name for folder in folders)
    return folders[0].parent / (f"report-{names}.html" if len(names) <= 100 else f"report-{len(folders)}-runs.html")


def _plain(figures: Figures) -> dict[str, Any]:
    """Figures for JSON, whose keys are text."""
    runs = [
        {
            **asdict(run),
            "accuracies": [
                {"dataset": dataset, "prompt": prompt, "by_seed": dict(seeds)}
                for (dataset, prompt), seeds in run.accuracies.items()
            ],
        }
        for run in figures.runs
    ]
    return {"runs": runs, "scores": figures.scores}
