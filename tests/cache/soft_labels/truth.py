"""Soft labels that follow from a number alone, in each layout, and spaces for them."""

from pathlib import Path

import numpy as np

from cache.fingerprints import Spec
from cache.soft_labels.block import SoftLabelBlock
from cache.soft_labels.layout import SoftLabelLayout
from cache.spaces import Space

V, K, C, DRAWS = 50, 4, 6, 20
SPECS: dict[SoftLabelLayout, Spec] = {
    "top": {"schema": 1, "layout": "top", "k": K, "vocabulary_size": V},
    "sampled": {"schema": 1, "layout": "sampled", "draws": DRAWS, "vocabulary_size": V},
    "hidden": {"schema": 1, "layout": "hidden", "hidden": "float16", "width": C, "vocabulary_size": V},
}


def make_space(store: Path, layout: SoftLabelLayout = "top", **fields: object) -> Space:
    return Space.open_or_create(store, "soft-labels", "teacher", {**SPECS[layout], **fields})


def key(number: int) -> str:
    return f"{number:064x}"


def full_logits(number: int, rows: int, vocabulary: int = V) -> np.ndarray:
    """What a teacher gives at each place, float32 (N, V)."""
    return (3 * np.random.default_rng(number).standard_normal((rows, vocabulary))).astype(np.float32)


def make_block(number: int, layout: SoftLabelLayout = "top", *, rows: int | None = None, k: int = K) -> SoftLabelBlock:
    random = np.random.default_rng(number)
    rows = 1 + number % 5 if rows is None else rows
    logits = full_logits(number, rows)
    norm = np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1))
    common = {
        "key": key(number),
        "ends": np.sort(random.integers(0, 80, rows)),
        "log_probability": (logits[:, 0] - logits.max(axis=1) - norm).astype(np.float32),
    }
    if layout == "top":
        tokens = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        scaled = logits - logits.max(axis=1, keepdims=True)
        norms = [np.log(np.exp(scaled / temperature).sum(axis=1)) for temperature in (1, 2)]
        return SoftLabelBlock(
            **common,
            tokens=tokens,
            logits=np.take_along_axis(scaled, tokens, axis=1),
            log_norms=np.stack(norms, axis=1).astype(np.float32),
        )
    if layout == "sampled":
        drawn = [np.unique(random.integers(0, 8, DRAWS), return_counts=True) for _ in range(rows)]
        tokens, counts = np.zeros((rows, DRAWS), np.int64), np.zeros((rows, DRAWS), np.int64)
        for row, (ids, often) in enumerate(drawn):
            order = np.lexsort((ids, -often))
            tokens[row, : len(ids)], counts[row, : len(ids)] = ids[order], often[order]
        return SoftLabelBlock(**common, tokens=tokens, counts=counts)
    return SoftLabelBlock(**common, hidden=random.standard_normal((rows, C)).astype(np.float32))


def make_head(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((V, C)).astype(np.float32)


def assert_same(found: SoftLabelBlock, written: SoftLabelBlock) -> None:
    """What was read is what was written, in the types that are stored; sampled rows may have lost empty columns."""
    assert found.key == written.key
    types = {"end": "i4", "log_probability": "f4", "token": "u4", "logit": "f2", "log_norm": "f4", "count": "u2"}
    theirs = dict(found.arrays())
    for name, array in written.arrays():
        expected = array.astype(types.get(name, "f2"))
        if written.counts is not None and array.ndim == 2:
            most = theirs[name].shape[1]
            assert not expected[:, most:].any()
            expected = expected[:, :most]
        np.testing.assert_array_equal(theirs[name], expected, strict=True)
    assert theirs.keys() == dict(written.arrays()).keys()
