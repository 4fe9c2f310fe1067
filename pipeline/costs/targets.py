"""What the students of a run will be drawn to, as far as the teacher's attention is stored.

In: the points of a run. Out: figures of their targets, once for all points that learn from the same, and lines that say
so. Nothing is said of objectives without attention, nor where a store is damaged but that it is.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import click

from cache.reader import AttentionStore
from data.errors import DamagedCacheError
from pipeline.console.tables import fill
from pipeline.run.points import PointStages
from pipeline.run.teacher import AttentionStage
from stages.attention.selected import keys_of
from stages.figures.targets import LayerWeights, TargetFigures, says_of_targets, target_figures
from stages.student.objective import objective_of

ROUNDING = 9
"""Digits behind which nats are none."""


@dataclass(frozen=True, kw_only=True)
class PointTargets:
    """Targets of `points`, which a run without matrix has one of."""

    points: tuple[str, ...]
    targets: TargetFigures


def targets_of(points: Sequence[PointStages]) -> list[PointTargets]:
    """Look at the targets of points that learn from attention of which something is stored."""
    alike: dict[tuple[int, str], list[PointStages]] = {}
    for stages in points:
        settings = objective_of(stages.point.config.objective).attention
        if settings is not None and says_of_targets(settings.alignment):
            of_targets = {name: asdict(settings)[name] for name in ("alignment", "tau_teacher", "rows")}
            alike.setdefault((id(stages.all_attention), json.dumps(of_targets)), []).append(stages)
    opened: dict[int, tuple[AttentionStore, Sequence[str]] | None] = {}
    found = []
    for (stage, _), same in alike.items():
        try:
            if stage not in opened:
                opened[stage] = _stored(same[0].all_attention)
            if (stored := opened[stage]) is not None:
                settings = objective_of(same[0].point.config.objective).attention
                assert settings is not None, "these are the points that learn from attention"
                figures = target_figures(*stored, settings)
                found.append(PointTargets(points=tuple(each.point.name for each in same), targets=figures))
        except DamagedCacheError as error:
            click.echo(f"warning: targets: {error}", err=True)
            opened[stage] = None
    return found


def _stored(stage: AttentionStage) -> tuple[AttentionStore, Sequence[str]] | None:
    """The store and the keys of the run's records that are in it; None where there are none."""
    keys = [key for key in keys_of(stage.selection.examples) if key in stage.recorded]
    return (stage.open(), keys) if keys else None


def print_targets(found: Sequence[PointTargets], *, single: bool) -> None:
    """Print a paragraph for each."""
    for one in found:
        more = f" and {len(one.points) - 1} more" if len(one.points) > 1 else ""
        of = "" if single else f" of {one.points[0]}{more}"
        click.echo(fill(f"targets{of}: {'; '.join(text for _, text in target_lines(one.targets))}"))


def target_lines(targets: TargetFigures) -> Iterator[tuple[str, str]]:
    """What is said of targets, each with a name that it may stand beside."""
    some = f"{targets.records:,} of " if targets.records < targets.stored else ""
    nats = f"{round(targets.nats_from_uniform, ROUNDING):.2g} nats from uniform"
    yield "targets", f"{nats}, the mean of {some}{targets.stored:,} stored records (rows: {targets.rows})"
    if targets.weights is not None:
        yield "teacher's layer weights", _weights(targets.weights)


def _weights(weights: LayerWeights) -> str:
    return (
        f"layer weights have {weights.entropy:.0%} of the entropy of even ones (tau {weights.tau:g}); layer "
        f"{weights.layer} has the largest in {weights.share:.0%} of records, {weights.weight:.2f} in the mean"
    )


def as_json(found: Sequence[PointTargets]) -> list[Mapping[str, object]]:
    """The same for machines."""
    return [{"points": one.points, **asdict(one.targets)} for one in found]
