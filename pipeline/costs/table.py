"""What there is to do and what it would take, as a table for people and as JSON for machines."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

import click

from pipeline.console.progress import duration
from pipeline.console.tables import binary_size, fill, print_rows
from pipeline.costs.estimate import Cost, Estimate, Figure
from pipeline.costs.targets import PointTargets
from pipeline.costs.targets import as_json as targets_as_json
from pipeline.run.plan import StageName, StagePlan, reasons
from pipeline.run.points import Run


def plans_as_json(
    run: Run,
    stages: Sequence[Estimate],
    points: Sequence[Mapping[StageName, StagePlan]] | None,
    targets: Sequence[PointTargets],
) -> object:
    """The same for machines: a list of stages, that of training with its targets, and of a matrix its points beside."""
    every = [
        {
            **asdict(stage.plan),
            "seconds_left": stage.cost and stage.cost.seconds.value,
            "cost": stage.cost,
            **({"targets": targets_as_json(targets)} if stage.plan.name == "train" else {}),
        }
        for stage in stages
    ]
    if points is None:
        return every
    by_point = [
        {"point": point.name, "values": dict(point.values), "stages": list(found.values())}
        for point, found in zip(run.points, points, strict=True)
    ]
    return {"matrix": run.folder, "shard": run.shard or run.share, "stages": every, "points": by_point}


def print_plans(stages: Sequence[Estimate]) -> None:
    """Print what each stage has done and has to do, and what that would take."""
    print_rows(("stage", "there", "to do", "unit", "disk", "memory", "time"), map(_row, stages))
    lines = [line for stage in stages for line in _remarks(stage.plan, stage.cost)]
    if any(stage.cost is not None and stage.cost.seconds.value is None for stage in stages):
        lines.append("~ is a rough estimate; to know more and how long it takes: molsaki run CONFIG --limit N")
    for line in lines:
        click.echo(fill(line))


def print_points(run: Run, names: Sequence[StageName], points: Sequence[Mapping[StageName, StagePlan]]) -> None:
    """Print what each point of a matrix has of every stage."""
    click.echo()
    found = zip(run.points, points, strict=True)
    rows = ((point.name, *(_state(plans.get(name)) for name in names)) for point, plans in found)
    print_rows(("point", *names), rows)


def _row(stage: Estimate) -> tuple[str, ...]:
    plan, cost = stage.plan, stage.cost
    return plan.title, f"{plan.done:,}", _to_do(plan, cost), plan.unit, *_cost_columns(cost)


def _state(plan: StagePlan | None) -> str:
    """`3 of 10`, or nothing where the point has no such stage here."""
    return "" if plan is None else f"{plan.done:,} of {plan.done + plan.to_do:,}"


def _to_do(plan: StagePlan, cost: Cost | None) -> str:
    """Units to do; with a tilde where an earlier stage has still to say how many they are."""
    if plan.waits_for is None or cost is None:
        return f"{plan.to_do:,}"
    return f"~{cost.units:,}" if cost.units > plan.to_do else f"{plan.to_do:,}"


def _cost_columns(cost: Cost | None) -> tuple[str, str, str]:
    """Disk, memory and time for people; nothing where there is nothing to do."""
    if cost is None:
        return "", "", ""
    gpu, host = cost.peak_gpu_bytes, cost.peak_bytes
    memory = f"{_about(gpu, binary_size)} GPU" if gpu.value else _about(host, binary_size)
    return _about(cost.bytes, binary_size), memory, _about(cost.seconds, duration)


def _about(figure: Figure, show: Callable[[float], str]) -> str:
    """A figure for people, with a tilde where it is no more than an estimate."""
    if figure.value is None:
        return "unknown"
    return ("~" if figure.source == "rough" else "") + show(figure.value)


def _remarks(plan: StagePlan, cost: Cost | None) -> Iterator[str]:
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
