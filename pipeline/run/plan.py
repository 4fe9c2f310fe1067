"""What a stage has done and has still to do, before anything is computed.

Every stage of the pipeline has the shape of `Stage`: `plan` is cheap and loads no model, `execute` does the work of
the plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from stages.runtime.progress import Progress, StopSignal
from stages.runtime.shard import Shard

StageName = Literal["rationales", "attention", "soft-labels", "train", "evaluate"]
STAGES: tuple[StageName, ...] = get_args(StageName)
STAGE_ONE: frozenset[StageName] = frozenset({"rationales", "attention", "soft-labels"})
"""Stages of the teacher: several processes may share them out, and points of a matrix have them in common."""


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Counts of one stage in its `unit`; `dropped` counts, by reason, what is left out on purpose.

    `waits_for` names an earlier stage that has to run before `to_do` is the whole truth. With `shard` the counts are
    those of one shard.
    """

    name: StageName
    unit: str
    done: int
    to_do: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    detail: str = ""
    waits_for: StageName | None = None
    shard: Shard | None = None

    @property
    def finished(self) -> bool:
        """Whether there is nothing to do, now or after an earlier stage."""
        return self.to_do == 0 and self.waits_for is None

    @property
    def title(self) -> str:
        """The stage, and which shard of it: `attention, shard 2/8`."""
        return self.name if self.shard is None else f"{self.name}, shard {self.shard}"

    def line(self) -> str:
        """Say what is there and what is to do, such as `rationales: 50 of 50 questions there, nothing to do`."""
        more = " or more" if self.waits_for else ""
        return self._line("nothing to do" if self.finished else f"{self.to_do:,}{more} to do")

    def result(self) -> str:
        """Say what is there after the stage has run."""
        return self._line("done" if self.finished else f"{self.to_do:,} still to do")

    def _line(self, state: str) -> str:
        parts = [f"{self.title}: {self.done:,} of {self.done + self.to_do:,} {self.unit} there, {state}"]
        if self.dropped:
            parts.append(f"{sum(self.dropped.values()):,} dropped ({reasons(self.dropped)})")
        return "; ".join((*parts, self.detail) if self.detail else parts)


class Stage(Protocol):
    """One stage of a run."""

    @property
    def name(self) -> StageName:
        """The command that runs it."""

    @property
    def written(self) -> int:
        """Characters that students have answered with since it was opened; 0 for other stages."""

    @property
    def likelihood_seconds(self) -> float:
        """Seconds that measuring log-probabilities has taken since then; 0 for other stages."""

    def plan(self) -> StagePlan:
        """Say what is there and what is missing; no model is loaded."""

    def execute(self, progress: Progress, stop: StopSignal) -> None:
        """Do what the plan says is missing; commits as it goes, raises `Interrupted` when asked to stop."""

    def fingerprints(self) -> Mapping[str, str]:
        """What the results are filed under, for provenance."""

    def pace(self) -> str:
        """A hash that is equal where one unit of the work costs alike: models, settings, space, but not how much."""


def total_plan(plans: Sequence[StagePlan]) -> StagePlan:
    """Several plans of one stage as one; what they all say is said once."""
    assert plans, "no plan to add up"
    if len(plans) == 1:
        return plans[0]
    first = plans[0]
    return StagePlan(
        name=first.name,
        unit=first.unit,
        done=sum(plan.done for plan in plans),
        to_do=sum(plan.to_do for plan in plans),
        dropped=first.dropped if all(plan.dropped == first.dropped for plan in plans) else {},
        detail=first.detail if all(plan.detail == first.detail for plan in plans) else "",
        waits_for=next((plan.waits_for for plan in plans if plan.waits_for), None),
    )


def reasons(dropped: Mapping[str, int]) -> str:
    """`wrong answer 3, too long 1`, most frequent first."""
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(dropped.items(), key=lambda item: -item[1]))
