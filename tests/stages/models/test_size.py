"""Sizes told from files alone: weights by headers or configuration, attention by what is stored."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cache.fingerprints import SCHEMA_VERSION
from cache.keys import record_key
from cache.spaces import Space
from cache.writer import AttentionBlock, AttentionWriter
from data.marking import mark
from stages.models.cut import load_first_layers
from stages.models.identity import identify_model
from stages.models.size import model_size, part_sizes
from tests.fakes import tiny_model, tiny_model_folder


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_weights_are_counted_by_the_headers_of_their_files(tmp_path: Path, architecture: str) -> None:
    folder = tiny_model_folder(tmp_path / "model", architecture, layers=3)  # type: ignore[arg-type]
    size = model_size(identify_model(str(folder), None))
    assert size is not None and size.counted == "its safetensors"
    model = tiny_model(architecture, layers=3)  # type: ignore[arg-type]
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (size.layers, size.width) == (3, 32)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_weights_of_the_first_layers_are_those_of_a_model_cut_to_them(tmp_path: Path, architecture: str) -> None:
    folder = tiny_model_folder(tmp_path / "model", architecture, layers=3)  # type: ignore[arg-type]
    identity = identify_model(str(folder), None)
    cut = load_first_layers(str(folder), None, 2)
    size = model_size(identity, 2)
    assert size is not None and size.layers == 2
    assert size.parameters == sum(parameter.numel() for parameter in cut.parameters())


def test_a_tower_beside_the_decoder_is_not_cut(tmp_path: Path) -> None:
    """By hand: two lists of two layers, of which the larger is the decoder; the cut leaves 100 + 2 * 3 + 20 values."""
    folder = tiny_model_folder(tmp_path / "model", "llama", layers=2)
    shapes = {"embed": (10, 10), "vision.layers.0.w": (3,), "vision.layers.1.w": (3,)}
    shapes |= {"model.layers.0.w": (4, 5), "model.layers.1.w": (4, 5)}
    save_file({name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}, folder / "model.safetensors")
    size = model_size(identify_model(str(folder), None), 1)
    assert size is not None and size.parameters == 100 + 2 * 3 + 20


def test_fewer_layers_of_a_model_without_weights_follow_from_its_configuration(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", "llama", layers=3)
    (folder / "model.safetensors").unlink()
    identity = identify_model(str(folder), None, weights=False)
    three, two = model_size(identity), model_size(identity, 2)
    assert three is not None and two is not None
    assert three.parameters - two.parameters == 32 * 32 * (2 + 2 * 0.5) + 3 * 32 * 64


def test_weights_that_are_not_there_follow_from_the_configuration(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", "llama", layers=3)
    counted = model_size(identify_model(str(folder), None))
    (folder / "model.safetensors").unlink()
    reckoned = model_size(identify_model(str(folder), None, weights=False))
    assert counted is not None and reckoned is not None
    assert reckoned.counted != counted.counted
    assert reckoned.parameters == pytest.approx(counted.parameters, rel=0.02)


def test_a_broken_weights_file_is_not_counted(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", "llama")
    (folder / "model.safetensors").write_bytes(b"broken")
    size = model_size(identify_model(str(folder), None))
    assert size is not None and size.parameters > 0 and "configuration" in size.counted


def test_a_configuration_without_shape_tells_no_size(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", "llama")
    (folder / "config.json").write_text(json.dumps({"model_type": "strange"}))
    assert model_size(identify_model(str(folder), None)) is None


def test_sizes_of_parts_give_back_the_size_of_the_space(tmp_path: Path) -> None:
    space = Space.open_or_create(tmp_path, "attention", "t", {"schema": SCHEMA_VERSION, "rounding": None})
    writer = AttentionWriter(space)
    numbers = np.random.default_rng(0)
    cells = 0
    for first in (0, 30):
        blocks = []
        for n in range(first, first + 30):
            marked = mark(f"Ann has {n} figs and 3 pens.", f"{n} and 3 make {n + 3}. The answer is {n + 3}.")
            shape = (4, len(marked.step_spans), len(marked.critical_spans))
            cells += shape[1] * shape[2]
            blocks.append(
                AttentionBlock(
                    key=record_key(marked),
                    marked=marked,
                    attention=numbers.random(shape, dtype=np.float32),
                    step_tokens=np.ones(shape[1], dtype=np.int32),
                )
            )
        writer.append(blocks)
    sizes = part_sizes(space.path, space.commits())
    assert sizes is not None and 0.5 < sizes.ratio < 1.3
    folders = (space.path / "parts", space.path / "commits")
    stored = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    assert sizes.of(4 * cells, 60, 2) == pytest.approx(stored, abs=2)


def test_a_space_without_parts_has_no_sizes(tmp_path: Path) -> None:
    space = Space.open_or_create(tmp_path, "attention", "t", {"schema": SCHEMA_VERSION, "rounding": None})
    assert part_sizes(space.path, space.commits()) is None
