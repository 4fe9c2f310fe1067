"""What commands on stores print: spaces, copies, findings and leftovers, for people and for machines."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from cache.spaces import SpaceDescription, SpaceSummary, UnreadableSpace
from pipeline.console.progress import duration
from pipeline.run.plan import reasons

if TYPE_CHECKING:
    from cache.gc import Leftover
if TYPE_CHECKING:
    from cache.repair import Repair
if TYPE_CHECKING:
    from cache.exchange.exporting import Exported
    from cache.exchange.importing import Imported
if TYPE_CHECKING:
    from cache.verify import Verification
if TYPE_CHECKING:
    from stages.attention.against_teacher import Drift
from pipeline.console.tables import new_table, print_json, print_table, size


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
