"""The command line: options enter, counts and an exit code leave; or a process that this package starts of itself.

Hidden options say what such a process does: fill a small disk and print the result as one line of JSON, or be the
rationale stage. Writers are started otherwise (writers.py).
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress

from benchmarks import faults
from benchmarks.faults.damage import DAMAGES, damage_files, flip_bits, make_sample
from benchmarks.faults.full_disk import fill_disk, fill_small_disk
from benchmarks.faults.full_disk_command import fill_disk_by_command, fill_small_disk_by_command
from benchmarks.faults.kills import kill_writers
from benchmarks.faults.results import Case, Result, print_json, print_table, timed
from benchmarks.faults.side_by_side import change_clocks, read_beside_writers, stop_writers, write_the_same
from benchmarks.faults.stage import ask_the_same, fill_disk_by_stage, fill_small_disk_by_stage, kill_stage
from benchmarks.faults.teacher import be_stage
from cache.spaces import Kind

Tested = Kind | Literal["stage"]
CHOICES: Mapping[str, Sequence[Tested]] = {
    "all": ["attention", "soft-labels", "rationales", "stage"],
    "stores": ["attention", "soft-labels", "rationales"],
    "attention": ["attention"],
    "soft-labels": ["soft-labels"],
    "rationales": ["rationales"],
    "stage": ["stage"],
}
"""What `--kind` may be, and what is put to the test then."""
MOST_QUESTIONS = 500
"""Of two jobs at once, and on a small disk."""

Task = Callable[[str, int], Callable[[], None]]
"""Begins to show progress of a case with so many steps, and returns what makes a step."""


def store_cases(kind: Kind, folder: Path, options: argparse.Namespace, task: Task) -> Iterator[tuple[str, Result]]:
    """Do everything for one kind of store, and give each result with its name."""
    seed = options.seed
    yield "kills", kill_writers(kind, folder / "kills", options.kills, seed, task("kills", options.kills))
    sample = make_sample(kind, folder / "flips")
    yield "flips", flip_bits(sample, options.flips, seed, task("flips", options.flips))
    files = sample.files
    yield "damage", damage_files(sample, files, task("damage", len(files) * len(DAMAGES)))
    for name, count, check in (
        ("readers", 20, read_beside_writers),
        ("same", 20, write_the_same),
        ("stops", 10, stop_writers),
    ):
        step = task(name, 1)
        yield name, check(kind, folder / name, count, seed)
        step()
    yield "clocks", change_clocks(kind, folder / "clocks", seed)
    step = task("full disk", 1)
    yield "full disk", fill_disk(kind, folder / "disk", options.pages)
    step()
    if kind == "rationales":
        step = task("full disk, command", 1)
        yield "full disk, command", fill_disk_by_command(folder / "command")
        step()


def stage_cases(folder: Path, options: argparse.Namespace, task: Task) -> Iterator[tuple[str, Result]]:
    """Do everything for the rationale stage, and give each result with its name."""
    questions, kills = options.questions, options.stage_kills
    yield "kills", kill_stage(folder / "kills", questions, kills, options.seed, task("kills", kills))
    for name, trial in (("same", ask_the_same), ("full disk", fill_disk_by_stage)):
        step = task(name, 1)
        yield name, trial(folder / name, min(questions, MOST_QUESTIONS))
        step()


def run_kind(kind: Tested, options: argparse.Namespace) -> list[Case]:
    """Do everything for a kind of store, or for the stage."""
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as place,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):

        def task(name: str, total: int) -> Callable[[], None]:
            number = progress.add_task(f"{kind}: {name}", total=total)
            return lambda: progress.advance(number)

        folder = Path(place)
        if kind == "stage":
            return list(timed(kind, stage_cases(folder, options, task)))
        return list(timed(kind, store_cases(kind, folder, options, task)))


def result_on_small_disk(options: argparse.Namespace) -> Result | None:
    """Do what a process on a small disk was started for; None where this is none."""
    if options.fill:
        return fill_small_disk(options.kind, options.fill, options.pages)
    if options.fill_by_command:
        return fill_small_disk_by_command(options.fill_by_command)
    if options.fill_by_stage:
        return fill_small_disk_by_stage(options.fill_by_stage, options.questions)
    return None


def main() -> None:
    """Read the options, do it and print counts; or be the stage, or the process that works on a small disk."""
    options = _options()
    if options.be_stage:
        be_stage(options.be_stage, options.padding, options.jobs)
    elif (result := result_on_small_disk(options)) is not None:
        print(json.dumps(asdict(result)))
    else:
        sys.exit(_run(options))


def _run(options: argparse.Namespace) -> int:
    """Do what the options say, print it, and return the exit code."""
    # numcodecs' locks outlive writers that are killed; they are removed in the end, with a warning that says just that.
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning"
    cases: list[Case] = []
    for kind in CHOICES[options.kind]:
        found = run_kind(kind, options)
        cases += found
        if not options.json:
            print_table(found)
    if options.json:
        print_json(cases)
    return int(any(case.result.bad() for case in cases))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=faults.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--kind",
        choices=list(CHOICES),
        default="all",
        help="a kind of store, all stores, the rationale stage, or all of it (default)",
    )
    parser.add_argument("--kills", type=int, default=200, help="kills over three writers, for each kind of store")
    parser.add_argument("--flips", type=int, default=1000, help="flipped bits, for each kind of store")
    parser.add_argument("--pages", type=int, default=60, help="a disk with no free page, with one, … up to this many")
    parser.add_argument("--questions", type=int, default=2000, help="what the stage asks; 200 fill the small disk")
    parser.add_argument("--stage-kills", type=int, default=20, help="kills of the stage while it asks them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    for name in ("--fill", "--fill-by-command", "--fill-by-stage", "--be-stage"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    for name, default in (("--padding", 0), ("--jobs", 1)):
        parser.add_argument(name, type=int, default=default, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
