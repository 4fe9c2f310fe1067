"""What commands print: tables for people, JSON for machines, both from the same records.

In: plans, accuracies, spaces. Out: text on stdout. Where stdout is no terminal a table takes the width it needs, so
that a log file is not cut to 80 columns.
"""

import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.spaces import SpaceDescription, SpaceSummary, UnreadableSpace
from pipeline.accuracies import Score, short_names
from pipeline.plans import StagePlan, reasons
from pipeline.progress import duration
from stages.statistics import Accuracy, PairedDifference

if TYPE_CHECKING:
    from rich.table import Table

    from cache.exchange.exporting import Exported
    from cache.exchange.importing import Imported
    from cache.gc import Leftover
    from cache.repair import Repair
    from cache.verify import Verification
    from pipeline.costs import Cost, Figure
    from stages.against_teacher import Drift

WIDE = 160


def print_json(value: object) -> None:
    """Print records as JSON."""
    click.echo(json_text(value))


def json_text(value: object) -> str:
    """Records as JSON."""
    return json.dumps(value, default=_plain, indent=1, ensure_ascii=False)


def print_plans(plans: Sequence[StagePlan], costs: "Sequence[Cost | None]", *, as_json: bool) -> None:
    """Print what each stage has done and has to do, and what that would take."""
    if as_json:
        seconds = [None if cost is None else cost.seconds.value for cost in costs]
        print_json(
            [
                {**asdict(plan), "seconds_left": left, "cost": cost}
                for plan, left, cost in zip(plans, seconds, costs, strict=True)
            ]
        )
        return
    table = new_table("stage", "there", "to do", "unit", "disk", "memory", "time")
    for plan, cost in zip(plans, costs, strict=True):
        table.add_row(plan.title, f"{plan.done:,}", _to_do(plan, cost), plan.unit, *_cost_columns(cost))
    print_table(table)
    lines = [line for plan, cost in zip(plans, costs, strict=True) for line in _remarks(plan, cost)]
    if any(cost is not None and cost.seconds.value is None for cost in costs):
        lines.append("~ is a rough estimate; to know more and how long it takes, try a share of it: --sample")
    for line in lines:
        click.echo(textwrap.fill(line, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def _to_do(plan: StagePlan, cost: "Cost | None") -> str:
    """Units to do; with a tilde where an earlier stage has still to say how many they are."""
    if plan.waits_for is None or cost is None:
        return f"{plan.to_do:,}"
    return f"~{cost.units:,}" if cost.units > plan.to_do else f"{plan.to_do:,}"


def _cost_columns(cost: "Cost | None") -> tuple[str, str, str]:
    """Disk, memory and time for people; nothing where there is nothing to do."""
    if cost is None:
        return "", "", ""
    gpu, host = cost.peak_gpu_bytes, cost.peak_bytes
    memory = f"{_about(gpu, binary_size)} GPU" if gpu.value else _about(host, binary_size)
    return _about(cost.bytes, binary_size), memory, _about(cost.seconds, duration)


def _about(figure: "Figure", show: Callable[[float], str]) -> str:
    """A figure for people, with a tilde where it is no more than an estimate."""
    if figure.value is None:
        return "unknown"
    return ("~" if figure.source == "rough" else "") + show(figure.value)


def _remarks(plan: StagePlan, cost: "Cost | None") -> Iterator[str]:
    """What the table has no room for: why records are left out, what is waited for, where the figures come from."""
    parts = [f"after {plan.waits_for}" if plan.waits_for else "", plan.detail]
    if plan.dropped:
        parts.append(f"{sum(plan.dropped.values()):,} dropped ({reasons(plan.dropped)})")
    if cost is not None:
        parts += cost.assumptions
        if cost.bytes_meanwhile.value:
            parts.append(f"{_about(cost.bytes_meanwhile, binary_size)} of checkpoints meanwhile")
        if cost.seconds.value is not None:
            parts.append(f"time and memory from {cost.seconds.how}")
    if said := "; ".join(part for part in parts if part):
        yield f"{plan.title}: {said}"


def print_spaces(spaces: Sequence[SpaceSummary | UnreadableSpace], *, as_json: bool) -> None:
    """Print one line for each space of a store; for machines with the problem where one cannot be opened."""
    if as_json:
        print_json(spaces)
        return
    problems = any(isinstance(space, UnreadableSpace) for space in spaces)
    table = new_table("space", "records", "dropped", "parts", "size", *([""] if problems else []))
    for space in spaces:
        name = f"{space.kind}/{space.path.name}"
        if isinstance(space, UnreadableSpace):
            table.add_row(name, "", "", "", "", "damaged" if space.damaged else "of another version")
        else:
            table.add_row(name, f"{space.records:,}", f"{space.dropped:,}", f"{space.parts:,}", size(space.bytes))
    print_table(table)


def print_space(space: SpaceDescription, *, as_json: bool) -> None:
    """Print what one space holds and what it was made with."""
    if as_json:
        print_json(space)
        return
    summary = space.summary
    table = new_table("", "")
    rows: Iterable[tuple[str, object]] = (
        ("path", summary.path),
        ("fingerprint", summary.fingerprint),
        ("records", f"{summary.records:,} in {summary.parts:,} parts, {size(summary.bytes)}"),
        ("dropped", reasons(space.drop_reasons) or "none"),
        ("uncommitted parts", ", ".join(space.uncommitted_parts) or "none"),
        *_rounding(space),
        *((f"made with {field}", value) for field, value in space.spec.items()),
        *((f"recorded {field}", value) for note in space.notes for field, value in note.items()),
    )
    for name, value in rows:
        table.add_row(name, str(value))
    print_table(table)


def _rounding(space: SpaceDescription) -> Iterator[tuple[str, str]]:
    """What storing has changed, measured when it was written; for `cache show`."""
    measured = sum(one.records for one in space.certificates)
    if space.summary.kind == "attention" and measured < (records := space.summary.records):
        yield "stored against float32", f"not measured for {records - measured:,} of {records:,} records"
    for one in space.certificates:
        yield (
            "stored against float32",
            f"relative error at most {one.largest_relative_error:.2g}, {one.mean_relative_error:.2g} in the mean of "
            f"{one.values:,} values (relative to 2^-14 below that)",
        )
        yield (
            "teacher's layer weights",
            f"change by at most {one.largest_weight_change:.2g}, total variation {one.mean_weight_distance:.2g} in the "
            f"mean of {one.sampled_records:,} sampled records, tau {one.tau:g}",
        )
        yield (
            "targets of L_att",
            f"KL divergence {one.mean_target_divergence:.2g} nats in the mean, {one.largest_target_divergence:.2g} at "
            "most, of the same records",
        )


def print_exported(exported: "Exported", *, as_json: bool) -> None:
    """Print what an export holds."""
    if as_json:
        print_json(exported)
        return
    table = new_table("", "")
    table.add_row("target", exported.target)
    table.add_row("fingerprint", exported.fingerprint)
    table.add_row("records", f"{exported.records:,} in {exported.parts:,} parts")
    table.add_row("files", f"{exported.files:,}, {size(exported.bytes)}; {exported.written:,} written now")
    print_table(table)


def print_imported(imported: "Imported", *, as_json: bool) -> None:
    """Print what an import has brought."""
    if as_json:
        print_json(imported)
        return
    table = new_table("", "")
    table.add_row("path", str(imported.path))
    table.add_row("fingerprint", imported.fingerprint)
    table.add_row("new records", f"{imported.records:,} in {imported.parts:,} parts, {size(imported.bytes)}")
    table.add_row("there already", f"{imported.known:,}")
    print_table(table)


def print_scores(scores: Sequence[Score], *, as_json: bool) -> None:
    """Print accuracies in percent, and the paired differences to the base where there are any."""
    if as_json:
        print_json(scores)
        return
    found = score_table(scores)
    table = new_table(*found.headings)
    for row in found.rows:
        table.add_row(*row)
    print_table(table)
    if found.caption:
        click.echo(found.caption)


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Accuracies as text; `caption` says what is the same for all rows, which then has no column."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str

    def markdown(self) -> str:
        """The table for a Markdown document."""
        lines = [self.headings, tuple("---" for _ in self.headings), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{self.caption}\n"


def score_table(scores: Sequence[Score]) -> ScoreTable:
    """The table of some runs; points of a matrix show only what varies."""
    names = short_names(list(dict.fromkeys(score.run for score in scores)))
    bases = dict.fromkeys(names[score.base] for score in scores if score.base)
    columns = {
        "run": [names[score.run] for score in scores],
        "data set": [score.dataset for score in scores],
        "prompt": [score.prompt for score in scores],
        "accuracy": [percent_text(score.accuracy) for score in scores],
        "seeds": [f"{score.accuracy.seeds}" for score in scores],
        "questions": [f"{score.accuracy.questions:,}" for score in scores],
    }
    said = []
    if bases:
        differences = [difference_text(score.difference) for score in scores]
        columns["difference"] = [difference for difference, _ in differences]
        columns["95% interval"] = [interval for _, interval in differences]
        alike = [name for name in ("data set", "seeds", "questions") if len(set(columns[name])) == 1]
        said = [f"{name} {columns.pop(name)[0]}" for name in alike]
        said.append(f"difference to {' or '.join(bases)}, of the same seeds and questions")
    headings = tuple(columns)
    return ScoreTable(headings=headings, rows=tuple(zip(*columns.values(), strict=True)), caption="; ".join(said))


def percent_text(accuracy: Accuracy) -> str:
    """Mean and, of several seeds, standard deviation."""
    spread = f" ± {100 * accuracy.deviation:.1f}" if accuracy.seeds > 1 else ""
    return f"{100 * accuracy.mean:.1f}{spread}"


def difference_text(difference: PairedDifference | None) -> tuple[str, str]:
    """Mean and interval of a difference in percent; empty where there is none."""
    if difference is None:
        return "", ""
    return f"{100 * difference.mean:+.1f}", f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"


def print_findings(found: "Verification", repairs: "Sequence[Repair]", drift: "Drift | None") -> None:
    """Print what is wrong in a space, what was done about it, and how far it is from its teacher."""
    table = new_table("part", "file", "what is wrong", "records", "first of them")
    for finding in found.findings:
        inside = f"parts/{finding.part}/"
        file = finding.file.removeprefix(inside)
        first = finding.keys[0][:16] if finding.keys else ""
        table.add_row(finding.part or "", file, finding.what, f"{finding.records:,}" if finding.records else "", first)
    if found.findings:
        print_table(table)
    for repair in repairs:
        lost = "an unknown number" if repair.recompute is None else f"{repair.recompute:,}"
        click.echo(f"{repair.file}: {repair.kept:,} records kept, {lost} will be computed by the next run")
    looked = f"{found.commits:,} commits, {found.records:,} records, {size(found.bytes)}"
    depth = "every record decoded" if found.deep else "sizes and hashes; --deep decodes every record"
    click.echo(f"{looked}: {len(found.findings):,} findings ({depth})")
    if drift is not None:
        click.echo(
            f"{drift.records:,} records through the teacher again: largest difference {drift.largest:.2e}, mean "
            f"{drift.mean:.2e}; {drift.dtype} explains {drift.expected:.2e}"
        )


def print_leftovers(found: "Sequence[Leftover]") -> None:
    """Print what is or would be removed from stores."""
    if not found:
        return
    table = new_table("leftover", "what", "size", "age")
    for leftover in found:
        table.add_row(str(leftover.path), leftover.what, size(leftover.bytes), duration(leftover.seconds))
    print_table(table)


def size(count: int) -> str:
    """Bytes for people."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def binary_size(count: float) -> str:
    """Bytes for people, in powers of 1,024 as memory and job schedulers count."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def new_table(*columns: str) -> "Table":
    """An empty table with these headings, in the look of all of ours."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_header=any(columns), pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_table(table: "Table") -> None:
    """Print a table to stdout."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=WIDE)
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n"))


def _plain(value: object) -> Any:  # whatever json asks for next
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
