"""What a checkpoint says to whoever asks it: lengths as transformers has them, positions, ends of a text."""

import json
from pathlib import Path

import pytest

from data.errors import ConfigError
from stages.models.asked import AskedStudent
from stages.models.tokenizer import encode_data, load_tokenizer
from tests.fakes import tiny_tokenizer

TEXTS = ["a", "predict: Zoë has 3 crêpes.\n", "</s> and <s>", ""]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_tokenizer(adds_begin=True).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_lengths_are_those_of_the_tokens_that_a_student_gets(folder: Path) -> None:
    ours = encode_data(load_tokenizer(str(folder), None), TEXTS)
    assert AskedStudent(folder).lengths(TEXTS) == [len(ids) for ids in ours]
    assert AskedStudent(folder).lengths(["ab"]) == [3], "two letters and the begin token"


def test_padding_and_cutting_that_a_tokenizer_file_asks_for_are_left_out(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(content))
    assert AskedStudent(folder).lengths(["abcdefgh"]) == [9]


def test_texts_that_hold_special_tokens_are_found(folder: Path) -> None:
    assert AskedStudent(folder).holds_special_tokens(TEXTS) == [False, False, True, False]


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"max_position_embeddings": 256}, 256),
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": 7, "text_config": {"max_position_embeddings": 32}}, 32),
        ({"model_type": "mamba"}, None),
        ({"max_position_embeddings": -1}, None),
    ],
)
def test_positions_are_those_of_the_text_model(folder: Path, config: object, positions: int | None) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    assert AskedStudent(folder).positions == positions


def test_a_text_ends_by_the_preferences_and_by_the_tokenizers_own(folder: Path) -> None:
    assert AskedStudent(folder).ends == ("</s>",)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 1]}))
    assert AskedStudent(folder).ends == ("<pad>", "</s>")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<s>"}}))
    assert AskedStudent(folder).ends == ("<pad>", "</s>", "<s>")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", "{", "cannot be read as a tokenizer"),
        ("config.json", "{", "cannot be read as JSON"),
        ("config.json", None, "missing"),
    ],
)
def test_a_file_that_is_damaged_or_missing_is_named(folder: Path, name: str, content: str | None, words: str) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ConfigError, match=f"{name}: {words}"):
        _ = AskedStudent(folder).positions, AskedStudent(folder).lengths(["a"])
