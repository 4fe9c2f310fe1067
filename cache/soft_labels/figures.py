"""What there is to say of stored soft labels: a store enters, bytes a row and the mass that its K tokens hold leave.

Letters: r rows, K tokens of a row, T temperature.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache.keys import hex_keys
from cache.soft_labels.block import SoftLabelBlock
from cache.soft_labels.layout import TEMPERATURES, SoftLabelLayout
from cache.soft_labels.reader import SoftLabelStore
from data.errors import MissingRecordsError

MOST_RECORDS = 256
"""Records whose rows are looked at, at equal distances in the store."""


@dataclass(frozen=True, kw_only=True)
class MassHeld:
    """How much of the teacher's distribution the stored K tokens are, over the rows of some records."""

    temperature: float
    records: int
    rows: int
    mean: float
    fifth_percentile: float


@dataclass(frozen=True, kw_only=True)
class SoftLabelFigures:
    """What a space of soft labels holds; `mass` is known of the layout `top` alone, one entry for each temperature."""

    layout: SoftLabelLayout
    rows: int
    bytes_a_row: float
    has_head: bool
    mass: tuple[MassHeld, ...]


def soft_label_figures(store: SoftLabelStore) -> SoftLabelFigures:
    """Return the figures of a store; raises `MissingRecordsError` for one without records."""
    rows = sum(part.counts["rows"] for part in store.parts)
    if not rows:
        raise MissingRecordsError(f"{store.space.path}: no soft labels yet; {store.computes} computes them")
    blocks = _sample(store) if store.layout == "top" else []
    return SoftLabelFigures(
        layout=store.layout,
        rows=rows,
        bytes_a_row=sum(part.bytes for part in store.parts) / rows,
        has_head=store.has_head,
        mass=tuple(_mass(blocks, temperature) for temperature in TEMPERATURES) if blocks else (),
    )


def mass_held(store: SoftLabelStore, temperature: float) -> MassHeld:
    """Return the share of the teacher's mass at `temperature` (1 or 2) that the stored tokens have.

    Σ_k exp(logit_k / T − log_norm_T) of a row, for rows of the layout `top`.
    """
    if store.layout != "top" or temperature not in TEMPERATURES:
        raise ValueError(f"no mass at temperature {temperature:g} of {store.layout} rows: top has it, at 1 and 2")
    return _mass(_sample(store), temperature)


def _sample(store: SoftLabelStore) -> list[SoftLabelBlock]:
    keys = store.key_rows
    places = np.linspace(0, len(keys) - 1, min(len(keys), MOST_RECORDS)).round().astype(np.int64)
    return store.read(list(hex_keys(keys[places])))


def _mass(blocks: Sequence[SoftLabelBlock], temperature: float) -> MassHeld:
    place = TEMPERATURES.index(temperature)
    held = []
    for block in blocks:
        assert block.logits is not None and block.log_norms is not None, "the layout top has both"
        logits, norms = block.logits.astype(np.float64), block.log_norms[:, place, None].astype(np.float64)
        held.append(np.exp(logits / temperature - norms).sum(axis=1))
    mass_r = np.minimum(np.concatenate(held), 1.0)
    return MassHeld(
        temperature=temperature,
        records=len(blocks),
        rows=len(mass_r),
        mean=float(mass_r.mean()),
        fifth_percentile=float(np.percentile(mass_r, 5)),
    )
