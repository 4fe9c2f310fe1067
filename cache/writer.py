"""Writing attention: blocks of marked records enter, one committed part leaves.

What cannot be stored (a value beyond float16, a shape that does not fit the record) is refused before any byte is
written.

Shape letters: L layers, S steps, K critical words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.fingerprints import JSON
from cache.keys import KEY_BYTES, record_key
from cache.layout import ATTENTION, MAX_RECORDS, STEP_ATTENTION, TEXT_END, Array
from cache.parts.writer import PartsWriter
from cache.rounding import ALL_BITS, kept_bits, largest_value, stored_values
from cache.spaces import Space
from cache.step_totals import RECEIVERS
from data.errors import DataError, ModelError
from data.records import Marked

COUNT_LIMIT = np.iinfo(np.int16).max


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionBlock:
    """The stepwise attention of one record (Eq. 2): `attention` (L, S, K), `step_tokens` (S,) tokens per step.

    `receivers` (L, S, 3) is what the steps look at beside single words (see `cache.step_totals`), None where that is
    not known; the blocks of one part have it all, or none.
    """

    key: str
    marked: Marked
    attention: npt.NDArray[np.floating[Any]]
    step_tokens: npt.NDArray[np.integer[Any]]
    receivers: npt.NDArray[np.floating[Any]] | None = None

    @property
    def nbytes(self) -> int:
        """What its attention takes in memory."""
        return self.attention.nbytes + (0 if self.receivers is None else self.receivers.nbytes)


class AttentionWriter(PartsWriter[AttentionBlock]):
    """Appends parts to one attention space; any number of writers may do so at the same time."""

    kind = "attention"
    layout = ATTENTION

    def __init__(self, space: Space, *, note: Mapping[str, JSON] | None = None) -> None:
        """Write into `space`; how values are rounded stands in its spec."""
        super().__init__(space, note=note)
        self.keep_bits = kept_bits(space.spec)

    def arrays_of(self, blocks: Sequence[AttentionBlock]) -> dict[str, Array]:
        """Return the arrays of a part with these blocks."""
        return arrays_of(blocks, self.keep_bits)


def arrays_of(blocks: Sequence[AttentionBlock], keep_bits: int = ALL_BITS) -> dict[str, Array]:
    """Return the arrays of a part with these blocks; raises as `append` does."""
    if len(blocks) > MAX_RECORDS:
        raise ValueError(f"{len(blocks)} records for one part, {MAX_RECORDS} at most")
    for block in blocks:
        _check_block(block, first=blocks[0])
    cells = [_stored(block.attention, block.key, keep_bits).reshape(-1, len(block.attention)) for block in blocks]
    steps = [len(block.marked.step_spans) for block in blocks]
    words = [len(block.marked.critical_spans) for block in blocks]
    arrays = {
        "attention": np.concatenate(cells),
        "cell_offset": np.cumsum([0, *map(len, cells)], dtype=np.int64),
        "steps": np.array(steps, dtype=np.int16),
        "words": np.array(words, dtype=np.int16),
        "step_tokens": np.concatenate([block.step_tokens for block in blocks]).astype(np.int32),
        "step_spans": np.array([span for block in blocks for span in block.marked.step_spans], dtype=np.int32),
        "word_spans": np.array([span for block in blocks for span in block.marked.critical_spans], dtype=np.int32),
        "key": np.frombuffer(b"".join(bytes.fromhex(block.key) for block in blocks), np.uint8).reshape(-1, KEY_BYTES),
        "text": np.frombuffer(b"".join(map(_texts, blocks)), np.uint8),
    }
    # These are never rounded further, for they are subtracted.
    told = [_stored(block.receivers, block.key, ALL_BITS) for block in blocks if block.receivers is not None]
    if told:
        arrays[STEP_ATTENTION] = np.concatenate(told)
    return arrays


def _check_block(block: AttentionBlock, first: AttentionBlock) -> None:
    marked = block.marked
    shape = (len(first.attention), len(marked.step_spans), len(marked.critical_spans))
    if block.attention.shape != shape or min(shape) < 1 or max(shape) > COUNT_LIMIT:
        raise ValueError(
            f"record {block.key}: attention of shape {block.attention.shape}, expected (L, S, K) = {shape} "
            f"by the first block of the part and the record's own spans, each from 1 to {COUNT_LIMIT}"
        )
    receivers = None if block.receivers is None else block.receivers.shape
    if receivers != (None if first.receivers is None else (*shape[:2], len(RECEIVERS))):
        raise ValueError(
            f"record {block.key}: receivers of shape {receivers}, expected (L, S, {len(RECEIVERS)}) in all blocks of a "
            "part, or none in any"
        )
    if block.step_tokens.shape != shape[1:2]:
        raise ValueError(f"record {block.key}: {block.step_tokens.shape} token counts for {shape[1]} steps")
    if marked.text != f"{marked.question}\n{marked.rationale}":
        raise ValueError(f"record {block.key}: its text is not question, line break, rationale")
    if block.key != record_key(marked):
        raise ValueError(f"record {block.key}: the key of this record is {record_key(marked)}")


def _stored(exact: npt.NDArray[np.floating[Any]], key: str, keep_bits: int) -> npt.NDArray[np.float16]:
    """Return the values as they are stored, layers last; raises `ModelError` where float16 does not hold them."""
    stored = stored_values(np.ascontiguousarray(np.moveaxis(exact, 0, -1)), keep_bits)
    if not np.isfinite(stored).all():
        bits = "" if keep_bits == ALL_BITS else f" with {keep_bits} bits of mantissa"
        raise ModelError(
            f"record {key}: attention of {np.abs(exact).max()} cannot be stored, float16{bits} ends at "
            f"{largest_value(keep_bits)}; a teacher that gives such values may need `teacher.dtype: float32`"
        )
    return stored


def _texts(block: AttentionBlock) -> bytes:
    try:
        return b"".join(text.encode() + TEXT_END for text in (block.marked.question, block.marked.rationale))
    except UnicodeEncodeError as error:
        raise DataError(f"record {block.key}: a text is no Unicode ({error})") from error
