"""The rationales of several sources as those of one: what a run learns from when others beside its teacher wrote too.

In: stages of rationales over the same questions, the run's own first. Out: what an attention stage asks of one of them.
Each has a space of its own, so that where a text came from stays known; a record that several wrote alike counts once,
as the first one's.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

from cache.fingerprints import Spec, fingerprint
from cache.spaces import Space
from data.records import Rationale
from pipeline.run.plan import StageName, StagePlan, total_plan
from pipeline.run.teacher import RationaleStage


class UnitedRationales:
    """Several sources; none of them is asked here."""

    name: StageName = "rationales"

    def __init__(self, sources: Sequence[RationaleStage]) -> None:
        self._sources = sources

    @property
    def begun(self) -> bool:
        """Whether each has a space."""
        return all(source.begun for source in self._sources)

    @property
    def space(self) -> Space:
        """That of the run's own source, beside which records are kept."""
        return self._sources[0].space

    @property
    def standing(self) -> Spec:
        """What it depends on, beside questions and the attempts in `space`, which rationales there are."""
        first, *others = self._sources
        return {**first.standing, "further": [{**other.parts, **other.standing} for other in others]}

    @property
    def rationales(self) -> tuple[Rationale, ...]:
        """The kept rationales of all sources, question by question within each."""
        return tuple(rationale for source in self._sources for rationale in source.rationales)

    @cached_property
    def _plan(self) -> StagePlan:
        return total_plan([source.plan() for source in self._sources])

    def plan(self) -> StagePlan:
        """All sources' counts, added up."""
        return self._plan

    @property
    def fingerprint(self) -> str:
        """Hash of all sources' specs."""
        return fingerprint({"sources": [*self.by_source]})

    @property
    def by_source(self) -> tuple[str, ...]:
        """The fingerprint of each."""
        return tuple(source.fingerprint for source in self._sources)

    def fingerprints(self) -> Mapping[str, str]:
        """Name of the union."""
        return {self.name: self.fingerprint}

    def forget(self) -> None:
        """Let go of questions and rationales."""
        for source in self._sources:
            source.forget()
