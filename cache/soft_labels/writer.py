"""Writing soft labels: blocks of records enter, one committed part leaves; and once for a space the teacher's head.

What cannot be stored is refused before any byte is written: shapes that are not those of the space's spec, values that
are not finite, and all that `cache.soft_labels.rules` finds wrong. Only what rounding in float32 may do is mended: a
logarithm of a probability that is a little above 0, or a norm a little below.

Letters: N rows of a record, r of all records of a part, K tokens of a row, V of the vocabulary, C width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.commits import Commit
from cache.fingerprints import JSON
from cache.keys import KEY, key_rows
from cache.layout import MAX_RECORDS, Array
from cache.parts.examine import offsets_of
from cache.parts.writer import PartsWriter
from cache.soft_labels.block import FIELDS, SoftLabelBlock
from cache.soft_labels.layout import HEAD, RowsSpec, layout_of, rows_spec
from cache.soft_labels.rules import SLACK, wrong_rows
from cache.spaces import Space
from data.errors import ModelError

LOWEST = float(np.finfo(np.float16).min)


class SoftLabelWriter(PartsWriter[SoftLabelBlock]):
    """Appends parts to one space of soft labels; any number of writers may do so at the same time."""

    kind = "soft-labels"

    def __init__(self, space: Space, *, note: Mapping[str, JSON] | None = None) -> None:
        """Write into `space`, whose spec says which layout its rows have; raises `ConfigError` where it does not."""
        super().__init__(space, note=note)
        self.rows = rows_spec(space.spec)
        self.layout = self.rows.parts

    def arrays_of(self, blocks: Sequence[SoftLabelBlock]) -> dict[str, Array]:
        """Return the arrays of a part with these blocks."""
        return arrays_of(blocks, self.rows)

    def append_head(
        self, head: npt.NDArray[np.floating[Any]], bias: npt.NDArray[np.floating[Any]] | None = None
    ) -> Commit | None:
        """Commit the head (V, C) that turns hidden states into logits, and its bias (V,) where there is one.

        Where the space has a head nothing is written, and None returned. Two writers at once may both write one; the
        first counts.
        """
        if any(commit.part is not None and is_head(commit, self.rows) for commit in self.space.commits()):
            return None
        return self.write(head_arrays(head, bias, self.rows), self.rows.head)


def is_head(commit: Commit, rows: RowsSpec) -> bool:
    """Say whether a commit's part holds the head instead of records."""
    return not layout_of(rows, commit.files).has_records


def head_arrays(
    head: npt.NDArray[np.floating[Any]], bias: npt.NDArray[np.floating[Any]] | None, rows: RowsSpec
) -> dict[str, Array]:
    """Return the arrays of the part with the head; raises `ValueError` for what is not the head of this space."""
    if rows.layout != "hidden":
        raise ValueError(f"a head in a space of the layout {rows.layout}, which has none")
    shape = (rows.vocabulary_size, rows.width)
    if head.shape != shape or (bias is not None and bias.shape != shape[:1]):
        told = "" if bias is None else f" and a bias of shape {bias.shape}"
        raise ValueError(f"a head of shape {head.shape}{told}, expected (V, C) = {shape} by the spec of the space")
    arrays = {HEAD: head} if bias is None else {HEAD: head, "head_bias": bias}
    return {name: _finite(array, rows.hidden, f"{name} of the teacher") for name, array in arrays.items()}


def arrays_of(blocks: Sequence[SoftLabelBlock], rows: RowsSpec) -> dict[str, Array]:
    """Return the arrays of a part with these blocks; raises as `append` does."""
    if len(blocks) > MAX_RECORDS:
        raise ValueError(f"{len(blocks)} records for one part, {MAX_RECORDS} at most")
    own = [name for name in rows.parts.arrays if name in FIELDS]
    for block in blocks:
        _check_shapes(block, own, rows)
    found = [_stored(block, rows) for block in blocks]
    lengths = np.array([len(block.ends) for block in blocks])
    columns = _columns(found, rows)
    arrays = {name: np.concatenate([_padded(one[name], columns) for one in found]) for name in own}
    _check_rows(arrays, offsets_of(lengths), blocks, rows)
    return {"key": key_rows(block.key for block in blocks), "row_offset": offsets_of(lengths), **arrays}


def _check_shapes(block: SoftLabelBlock, own: Sequence[str], rows: RowsSpec) -> None:
    if not KEY.fullmatch(block.key):
        raise ValueError(f"{block.key!r} is no key of 64 hex digits")
    given = dict(block.arrays())
    if wrong := sorted(given.keys() ^ set(own)):
        names = ", ".join(FIELDS[name] for name in wrong)
        raise ValueError(f"record {block.key}: {names} given or missing, against the layout {rows.layout} of the space")
    second = {"rank": rows.k or 0, "width": rows.width or 0, "temperature": 2}
    if rows.layout == "sampled" and given["token"].ndim == 2:
        second["rank"] = given["token"].shape[1]
    for name, array in given.items():
        layout = rows.parts.arrays[name]
        shape = (len(block.ends), *(second[dimension] for dimension in layout.dimensions[1:]))
        if array.shape != shape or min(shape) < 1:
            raise ValueError(
                f"record {block.key}: {FIELDS[name]} of shape {array.shape}, expected {shape} by its ends and the spec "
                "of the space, each from 1"
            )
        if array.dtype.kind not in ("f" if np.dtype(layout.dtype).kind == "f" else "iu"):
            raise ValueError(f"record {block.key}: {FIELDS[name]} of type {array.dtype}, stored as {layout.dtype}")


def _stored(block: SoftLabelBlock, rows: RowsSpec) -> dict[str, Array]:
    """Return the arrays of a block in the types that they are stored in."""
    stored: dict[str, Array] = {}
    for name, array in block.arrays():
        dtype, what = np.dtype(rows.parts.arrays[name].dtype), f"record {block.key}: {FIELDS[name]}"
        if name == "logit":
            array = np.maximum(array, LOWEST)  # also what the teacher rules out, −∞
        if dtype.kind != "f":
            limits = np.iinfo(dtype)
            if array.min() < limits.min or array.max() > limits.max:
                raise ValueError(f"{what} from {array.min()} to {array.max()} cannot be stored as {dtype}")
            stored[name] = array.astype(dtype)
            continue
        stored[name] = _finite(array, str(dtype), what)
    own = stored["log_probability"]
    own[(own > 0) & (own < SLACK)] = 0
    if (norms := stored.get("log_norm")) is not None:
        norms[(norms < 0) & (norms > -SLACK)] = 0
    return stored


def _finite(array: npt.NDArray[np.floating[Any]], dtype: str, what: str) -> Array:
    with np.errstate(over="ignore"):
        stored = array.astype(dtype)
    if not np.isfinite(stored).all():
        raise ModelError(f"{what}: a value that is not finite in {dtype}")
    return stored


def _columns(found: Sequence[Mapping[str, Array]], rows: RowsSpec) -> int | None:
    """How many different tokens any row has that were drawn; None for layouts with as many everywhere."""
    if rows.layout != "sampled":
        return None
    return max(1, *(int((one["count"] > 0).sum(axis=1).max()) for one in found))


def _padded(array: Array, columns: int | None) -> Array:
    """Cut or fill up with zeros what stands behind the drawn tokens; a token in what is cut was drawn not once."""
    if columns is None or array.ndim == 1:
        return array
    return np.pad(array[:, :columns], ((0, 0), (0, max(0, columns - array.shape[1]))))


def _check_rows(
    arrays: Mapping[str, Array], offsets: npt.NDArray[np.int64], blocks: Sequence[SoftLabelBlock], rows: RowsSpec
) -> None:
    starts = np.zeros(offsets[-1], dtype=bool)
    starts[offsets[:-1]] = True
    for wrong in wrong_rows(arrays, starts, rows):
        row = int(wrong.rows.argmax())
        number = int(np.searchsorted(offsets, row, side="right")) - 1
        raise ValueError(
            f"record {blocks[number].key}: row {row - offsets[number]} of {FIELDS[wrong.array]}: {wrong.what}"
        )
