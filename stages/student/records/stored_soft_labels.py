"""The store's soft labels as one student learns from them: looked at before the first step, and mapped.

In: a store, the objective, the student's identity and records. Out: what the collator takes rows from, and the head by
which hidden states become logits. What would fail in the midst of training, or teach next to nothing, is said here.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch

from cache.keys import are_among, key_rows
from cache.soft_labels.figures import mass_held
from cache.soft_labels.mapped import mapped_soft_labels
from cache.soft_labels.reader import SoftLabelStore
from data.errors import ConfigError, MissingRecordsError
from stages.models.identity import ModelIdentity
from stages.runtime.progress import SOFT_LABELS, Progress
from stages.soft_labels.head import TeacherHead
from stages.soft_labels.vocabulary import require_one_vocabulary
from stages.student.objective import Objective
from stages.student.records.kept import keys_of_records
from stages.student.records.soft_labels import COUNTED, SoftTargets
from stages.student.texts import TrainingRecord, target_ends

LEAST_MASS = 0.9
"""Share of the teacher's distribution below which stored tokens are warned of."""
LOOKED_AT_FIRST = 100
"""Records whose soft labels are looked for before the first step."""


def soft_targets(
    objective: Objective,
    store: SoftLabelStore | None,
    identity: ModelIdentity,
    records: Sequence[TrainingRecord],
    progress: Progress,
) -> SoftTargets | None:
    """The store's soft labels for an objective that learns from them.

    Raises `ConfigError` where they are of another vocabulary than the student's, or of no token of its first texts.
    """
    if objective.soft_labels is None:
        return None
    if store is None:
        raise MissingRecordsError("soft labels are missing; `molsaki soft-labels CONFIG` makes them")
    term = objective.soft_labels
    if term.match == "tokens":
        require_one_vocabulary(identity, str(store.space.spec["vocabulary"]))
    if missing := int((~are_among(key_rows(keys_of_records(records)), store.key_rows)).sum()):
        raise MissingRecordsError(
            f"soft labels of {missing} of {len(records)} records are missing; `molsaki soft-labels CONFIG` fills them"
        )
    progress.start(SOFT_LABELS, sum(map(len, store.parts)))
    targets = SoftTargets(blocks=mapped_soft_labels(store, progress.advance), settings=term)
    some = [(record.key, target_ends(record)) for record in records[:LOOKED_AT_FIRST]]
    if not targets.of(some)[COUNTED].any():
        raise ConfigError(
            f"objective.terms.soft_labels: none of the target tokens of {len(some)} texts begins and ends where one of "
            "the teacher's does"
        )
    if term.match == "tokens" and store.layout == "top":
        _warn_of_tail(store, term.temperature, progress)
    return targets


def _warn_of_tail(store: SoftLabelStore, temperature: float, progress: Progress) -> None:
    """Say where the stored tokens hold so little that mostly the tail, which is one bucket, would be learned from."""
    held = mass_held(store, temperature)
    if held.mean < LEAST_MASS:
        progress.note(
            f"warning: the {store.rows.k} likeliest tokens hold {held.mean:.1%} of the teacher's mass at temperature "
            f"{temperature:g} (a twentieth of places under {held.fifth_percentile:.1%}), and the rest is one bucket; "
            "soft_labels.layout hidden tells all of it"
        )


def teacher_head(store: SoftLabelStore | None) -> TeacherHead | None:
    """What makes logits of hidden states, where such are stored."""
    if store is None or store.layout != "hidden":
        return None
    head = store.head()
    return TeacherHead(
        weight=torch.from_numpy(head.weight),
        bias=None if head.bias is None else torch.from_numpy(head.bias),
        scales=cast(Mapping[str, float], store.space.spec["scales"]),
    )
