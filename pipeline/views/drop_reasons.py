"""Why questions of a run have no record to learn from: what `molsaki report` says about the data.

In: a configuration, the fingerprints that the run's folder names, and the store, if it is there. Out: counts by stage
and reason. Where the training questions are at hand (in files, or made up) they are this run's own, as `molsaki status`
counts them; questions on the hub are not fetched for a report, and then the counts are those of the whole spaces, which
other runs may share. No model is looked at: the spaces are found by their fingerprints.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cache.rationales import KEPT, PREFERENCE, RationaleStore
from cache.spaces import Space, dropped_records, is_space
from data.errors import MissingRecordsError
from pipeline.config.schema import Config
from pipeline.run.inputs import Inputs
from pipeline.run.selection import select_examples

FOLDER_DIGITS = 16
"""Digits of a fingerprint in the name of a space's folder."""


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Counts by stage and reason; `kept` counts records. `whole_spaces` where other runs' questions are among them."""

    questions: int
    kept: int
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    whole_spaces: bool = False


def dropped(config: Config, fingerprints: Mapping[str, str]) -> Dropped:
    """Count what was left out of a run; `MissingRecordsError` where the store does not hold its rationales."""
    rationales = _space(config.store, "rationales", fingerprints)
    if rationales is None:
        raise MissingRecordsError(f"the store {config.store} does not hold this run's rationales")
    attention = _space(config.store, "attention", fingerprints)
    unreadable = {} if attention is None else dropped_records(attention.commits())
    if all(source.path is not None or source.name == "synthetic" for source in config.data.train):
        return _of_run(config, RationaleStore(rationales), unreadable)
    return _of_spaces(RationaleStore(rationales), unreadable)


def _space(store: Path, kind: str, fingerprints: Mapping[str, str]) -> Space | None:
    """The space of that kind with the run's fingerprint, if there is one."""
    if kind not in fingerprints:
        return None
    found = sorted((store / kind).glob(f"*-{fingerprints[kind][:FOLDER_DIGITS]}"))
    return Space.open(found[0]) if found and is_space(found[0]) else None


def _of_run(config: Config, store: RationaleStore, unreadable: Mapping[str, str]) -> Dropped:
    from stages.rationales.write import kept_rationales, plan_rationales

    questions = Inputs(config).questions("train")
    plan = plan_rationales(questions, store.attempts(), config.rationales)
    selection = select_examples(tuple(kept_rationales(questions, store, config.rationales)), config.attention)
    too_much = Counter(unreadable[one.key] for one in selection.examples if one.key in unreadable)
    return Dropped(
        questions=len(questions),
        kept=len(selection.examples) - too_much.total(),
        reasons=_stages(plan.dropped, Counter(selection.dropped) + too_much),
    )


def _of_spaces(store: RationaleStore, unreadable: Mapping[str, str]) -> Dropped:
    """A question is kept with any kept rationale, else it counts by its latest attempt; its key words do not count."""
    outcomes: dict[str, str] = {}
    for attempt in store.attempts().values():
        if attempt.phase in PREFERENCE and outcomes.get(attempt.key) != KEPT:
            outcomes[attempt.key] = attempt.outcome
    counts = Counter(outcomes.values())
    kept = counts.pop(KEPT, 0)
    reasons = Counter(unreadable.values())
    return Dropped(
        questions=len(outcomes), kept=kept - reasons.total(), reasons=_stages(counts, reasons), whole_spaces=True
    )


def _stages(rationales: Mapping[str, int], attention: Mapping[str, int]) -> dict[str, Mapping[str, int]]:
    by_stage = {"rationales": rationales, "attention": attention}
    return {stage: dict(Counter(reasons).most_common()) for stage, reasons in by_stage.items() if reasons}
