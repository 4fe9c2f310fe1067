"""What commands on stores print: spaces, findings and leftovers, for people and for machines."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cache.gc import Leftover
from cache.repair import Repair
from cache.soft_labels.figures import SoftLabelFigures
from cache.spaces import SpaceDescription, SpaceSummary, UnreadableSpace
from cache.verify import Finding, Verification
from pipeline.console.progress import duration
from pipeline.console.tables import print_json, print_rows, size
from pipeline.costs.targets import target_lines
from pipeline.run.plan import reasons
from stages.figures.targets import TargetFigures

if TYPE_CHECKING:
    from stages.attention.against_teacher import Drift


def space_row(space: SpaceSummary | UnreadableSpace) -> tuple[str, ...]:
    """The line of one space in the list of a store; for one that cannot be opened, with the reason."""
    name = f"{space.kind}/{space.path.name}"
    if isinstance(space, UnreadableSpace):
        return name, "", "", "", "", "damaged" if space.damaged else "of another version"
    return name, f"{space.records:,}", f"{space.dropped:,}", f"{space.parts:,}", size(space.bytes)


def print_space(space: SpaceDescription, learned: TargetFigures | SoftLabelFigures | None, *, as_json: bool) -> None:
    """Print what one space holds and what it was made with, and what students would learn from it by default."""
    summary = space.summary
    labels = learned if isinstance(learned, SoftLabelFigures) else None
    targets = None if isinstance(learned, SoftLabelFigures) else learned
    rows: Iterable[tuple[str, object]] = (
        ("path", summary.path),
        ("fingerprint", summary.fingerprint),
        ("records", f"{summary.records:,} in {summary.parts:,} parts, {size(summary.bytes)}"),
        ("dropped", reasons(space.drop_reasons) or "none"),
        ("uncommitted parts", ", ".join(space.uncommitted_parts) or "none"),
        *_rounding(space),
        *((f"{name}, by default", text) for name, text in ([] if targets is None else target_lines(targets))),
        *([] if labels is None else _soft_labels(labels)),
        *((f"made with {field}", _in_a_line(value)) for field, value in space.spec.items()),
        *((f"recorded {field}", value) for note in space.notes for field, value in note.items()),
    )
    found = {**asdict(space), "targets": targets, "soft_labels": labels}
    print_fields(found, rows, as_json=as_json)


def _in_a_line(value: object) -> object:
    r"""A value, its line breaks as `\n`."""
    return value.replace("\n", r"\n") if isinstance(value, str) else value


def _soft_labels(labels: SoftLabelFigures) -> Iterator[tuple[str, str]]:
    """What the rows of soft labels hold."""
    yield "target tokens", f"{labels.rows:,}, {labels.bytes_a_row:,.0f} bytes each"
    if labels.layout == "hidden":
        yield "head", "stored" if labels.has_head else "not stored yet"
    for mass in labels.mass:
        yield (
            f"mass held, temperature {mass.temperature:g}",
            f"{mass.mean:.2%} in the mean, {mass.fifth_percentile:.2%} at the 5th percentile of {mass.rows:,} target "
            f"tokens of {mass.records:,} records",
        )


def print_fields(record: object, rows: Iterable[tuple[str, object]], *, as_json: bool) -> None:
    """Print a record for machines, or these lines of it for people."""
    if as_json:
        print_json(record)
        return
    print_rows(("", ""), ((name, str(value)) for name, value in rows))


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


def print_findings(found: Verification, repairs: Sequence[Repair], drift: "Drift | None") -> None:
    """Print what is wrong in a space, what was done about it, and how far it is from its teacher."""
    if found.findings:
        columns = ("part", "file", "what is wrong", "records", "first of them")
        print_rows(columns, map(_finding_row, found.findings))
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


def _finding_row(finding: Finding) -> tuple[str, ...]:
    file = finding.file.removeprefix(f"parts/{finding.part}/")
    first = finding.keys[0][:16] if finding.keys else ""
    return finding.part or "", file, finding.what, f"{finding.records:,}" if finding.records else "", first


def print_leftovers(found: Sequence[Leftover], *, dry_run: bool, as_json: bool) -> None:
    """Print what is or would be removed from stores."""
    total = sum(leftover.bytes for leftover in found)
    if as_json:
        print_json({"removed": not dry_run, "bytes": total, "leftovers": found})
        return
    if found:
        rows = ((str(one.path), one.what, size(one.bytes), duration(one.seconds)) for one in found)
        print_rows(("leftover", "what", "size", "age"), rows)
    click.echo(f"{len(found):,} leftovers, {size(total)} {'would be freed' if dry_run else 'freed'}")
