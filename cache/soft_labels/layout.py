"""The layouts of soft labels: what a space's spec says of its rows enters, the arrays of its parts leave.

A *row* is one place of a record's target text, a token or the end behind the last one, with what the teacher expected
there: its K most likely tokens (`top`), tokens drawn from its distribution (`sampled`), or the last hidden state, from
which its head makes all of them (`hidden`; the head lies in a part of its own, without records).

Zarr is not imported here. Letters: K tokens of a row, V tokens of the vocabulary, C width of the hidden state.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from cache.commits import Commit
from cache.fingerprints import JSON, Spec
from cache.keys import KEY_BYTES
from cache.layout import KEY_ARRAY, METADATA, ArrayLayout, PartLayout
from cache.spaces import Space
from data.errors import ConfigError

SoftLabelLayout = Literal["top", "sampled", "hidden"]
LAYOUTS: tuple[SoftLabelLayout, ...] = get_args(SoftLabelLayout)
HIDDEN_TYPES = ("float16", "float32")
TEMPERATURES = (1.0, 2.0)
"""Those at which `log_norm` is known, in the order of its last dimension."""
MOST_TOKENS = 1 << 24
"""Tokens that a vocabulary may have, far more than any has: a row is judged at once."""
MOST_WIDTH = 1 << 20
LONG_CHUNK_ROWS = 65536
CHUNK_VALUES = 1 << 20
HEAD = "head"

OF_ALL: Mapping[str, ArrayLayout] = {
    "key": KEY_ARRAY,
    "row_offset": ArrayLayout(dtype="int64", dimensions=("record_edge",)),
    "end": ArrayLayout(dtype="int32", dimensions=("row",), chunk_rows=LONG_CHUNK_ROWS),
    "log_probability": ArrayLayout(dtype="float32", dimensions=("row",), chunk_rows=LONG_CHUNK_ROWS),
}
"""What every part with records holds."""


@dataclass(frozen=True, kw_only=True)
class RowsSpec:
    """What the spec of a space says of its rows; None for what another layout has, or nobody knows."""

    layout: SoftLabelLayout
    vocabulary_size: int | None
    k: int | None = None
    draws: int | None = None
    width: int | None = None
    hidden: str = "float16"

    @cached_property
    def parts(self) -> PartLayout:
        """The layout of parts with records."""
        across = {"width": ("hidden", 1)} if self.layout == "hidden" else {"k": ("token", 1)}
        fixed = {"key_byte": KEY_BYTES, **_known(rank=self.k, width=self.width)}
        if self.layout == "top":
            fixed["temperature"] = len(TEMPERATURES)
        return PartLayout(
            arrays={**OF_ALL, **self._arrays()},
            counts={"records": ("key", 0), "rows": ("end", 0), **across},
            fixed=fixed,
            offsets={"row_offset": "row"},
        )

    @cached_property
    def head(self) -> PartLayout:
        """The layout of the part with the head."""
        return PartLayout(
            arrays={HEAD: _wide(self.hidden, "token_id", "width")},
            optional={
                "head_bias": ArrayLayout(dtype=self.hidden, dimensions=("token_id",), chunk_rows=LONG_CHUNK_ROWS)
            },
            counts={"vocabulary": (HEAD, 0), "width": (HEAD, 1)},
            fixed=_known(token_id=self.vocabulary_size, width=self.width),
        )

    def _arrays(self) -> Mapping[str, ArrayLayout]:
        tokens = {"token": _wide("uint32", "row", "rank")}
        if self.layout == "top":
            norms = ArrayLayout(dtype="float32", dimensions=("row", "temperature"))
            return {**tokens, "logit": _wide("float16", "row", "rank"), "log_norm": norms}
        if self.layout == "sampled":
            return {**tokens, "count": _wide("uint16", "row", "rank")}
        return {"hidden": _wide(self.hidden, "row", "width")}


def _wide(dtype: str, *dimensions: str) -> ArrayLayout:
    return ArrayLayout(dtype=dtype, dimensions=dimensions, chunk_values=CHUNK_VALUES)


def _known(**sizes: int | None) -> dict[str, int]:
    return {name: size for name, size in sizes.items() if size is not None}


def rows_spec(spec: Spec) -> RowsSpec:
    """Return what a spec says of the rows; raises `ConfigError` where it does not say it, or what cannot be."""
    layout = next((layout for layout in LAYOUTS if layout == spec.get("layout")), None)
    if layout is None:
        raise ConfigError(f"soft labels: layout is {spec.get('layout')!r}, expected {', '.join(LAYOUTS)}")
    vocabulary_size = _number(spec, "vocabulary_size", MOST_TOKENS)
    if layout == "top":
        return RowsSpec(layout=layout, vocabulary_size=vocabulary_size, k=_number(spec, "k", vocabulary_size))
    if layout == "sampled":
        return RowsSpec(layout=layout, vocabulary_size=vocabulary_size, draws=_number(spec, "draws", (1 << 16) - 1))
    if spec.get("hidden") not in HIDDEN_TYPES:
        raise ConfigError(f"soft labels: hidden is {spec.get('hidden')!r}, expected {' or '.join(HIDDEN_TYPES)}")
    width = _number(spec, "width", MOST_WIDTH)
    return RowsSpec(layout=layout, vocabulary_size=vocabulary_size, width=width, hidden=str(spec["hidden"]))


def _number(spec: Spec, name: str, most: int) -> int:
    value: JSON = spec.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ConfigError(f"soft labels: {name} is {value!r}, expected a number from 1 to {most:,}")
    return value


def rows_spec_of(space: Space, commit: Commit) -> RowsSpec:
    """Return what the spec of a space says; where that is lost, what the files of a part tell by their names."""
    if space.spec:
        return rows_spec(space.spec)
    names = {file.partition("/")[0] for file in commit.files}
    if names & {HEAD, "hidden"}:
        floats = _stored_type(space.part_path(commit) / (HEAD if HEAD in names else "hidden") / METADATA)
        return RowsSpec(layout="hidden", vocabulary_size=None, hidden=floats)
    return RowsSpec(layout="sampled" if "count" in names else "top", vocabulary_size=None)


def _stored_type(metadata: Path) -> str:
    try:
        found = json.loads(metadata.read_bytes())["data_type"]
    except (OSError, ValueError, KeyError, TypeError):  # damaged as well, which is named elsewhere
        found = None
    return next((dtype for dtype in HIDDEN_TYPES if dtype == found), HIDDEN_TYPES[0])


def layout_of(rows: RowsSpec, files: Collection[str]) -> PartLayout:
    """Return the layout of a part with these files: the head's, or that of records."""
    is_head = rows.layout == "hidden" and any(file.startswith(f"{HEAD}/") for file in files)
    return rows.head if is_head else rows.parts
