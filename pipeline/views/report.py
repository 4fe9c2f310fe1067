"""`molsaki report`: runs on one page that can be passed on.

In: runs by name or folder, a matrix as all its points. Out: one HTML file, and its path on stdout; for machines path
and all figures. The same folders give the same file, byte by byte.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from data.errors import ConfigError
from pipeline.console.tables import print_json
from pipeline.results.folder import RunFolder
from pipeline.results.scores import base_of, folder_of, run_folders
from pipeline.views.page import write_page
from pipeline.views.report_page import report_page
from pipeline.views.run_figures import Figures, read_figures


def write_report(runs: Sequence[str], root: Path, *, out: Path | None = None, base: str | None = None) -> Path:
    """Write the report of `runs` and return its path: `out`, or `report.html` in the folder of the one run."""
    return _write(runs, root, out, base)[0]


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
