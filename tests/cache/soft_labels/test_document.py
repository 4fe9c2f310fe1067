"""What the documents say of soft labels: their own code reads a store, and a row costs no more than stated."""

from pathlib import Path

import numpy as np
import pytest

import benchmarks.soft_labels
from cache.soft_labels.layout import LAYOUTS
from cache.soft_labels.writer import SoftLabelWriter
from tests.cache.soft_labels.truth import full_logits, key, make_block, make_head, make_space

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "cache-format.md"
MOST_BYTES_A_ROW = 330


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_documents_own_code_reads_a_store_with_zarr_alone(tmp_path, layout):
    space = make_space(tmp_path, layout)
    for numbers in ((1, 2), (3, 2)):
        SoftLabelWriter(space).append([make_block(number, layout) for number in numbers], {"f" * 64: "too long"})
    SoftLabelWriter(space).append([], {"e" * 64: "too long"})
    if layout == "hidden":
        SoftLabelWriter(space).append_head(make_head())
    (snippet,) = (
        block.split("```")[0]
        for block in DOCUMENT.read_text(encoding="utf-8").split("```python\n")[1:]
        if "store/soft-labels/" in block
    )
    assert "cache." not in snippet
    (line,) = (line for line in snippet.splitlines() if line.startswith("space = "))
    found: dict[str, dict] = {}
    exec(snippet.replace(line, f"space = Path({str(space.path)!r})"), found)
    assert set(found["rows_of"]) == {key(number) for number in (1, 2, 3)}
    for number in (1, 2, 3):
        rows, block = found["rows_of"][key(number)], make_block(number, layout)
        np.testing.assert_array_equal(rows["end"], block.ends)
        if layout == "top":
            logits = full_logits(number, len(block.ends))
            for temperature in (1, 2):
                exact = np.exp(logits / temperature) / np.exp(logits / temperature).sum(axis=1, keepdims=True)
                exact = np.take_along_axis(exact, block.tokens, axis=1)
                np.testing.assert_allclose(rows[f"p at temperature {temperature}"], exact, rtol=5e-3)


@pytest.mark.parametrize("vocabulary", benchmarks.soft_labels.VOCABULARIES)
def test_a_row_of_64_tokens_costs_no_more_than_stated(monkeypatch, vocabulary):
    monkeypatch.setattr(benchmarks.soft_labels, "RECORDS", 8)
    blocks = benchmarks.soft_labels.made_up(vocabulary, 64)
    case = benchmarks.soft_labels.measure(vocabulary, blocks, 64)
    assert (case.rows, case.k) == (800, 64)
    assert case.bytes_a_row <= MOST_BYTES_A_ROW
    assert case.float16_error < 0.01 < case.bfloat16_error
    assert 0.8 < case.mass["temperature 1"] < 1
