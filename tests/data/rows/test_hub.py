"""The hub's layout gives the questions that files give; what the hub cannot give is one line."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from data.errors import ConfigError
from data.readers import read_questions
from data.sets import DatasetName
from data.settings import DataSource
from tests.data.published_rows import HUB_ROWS, SVAMP_ROW, read_one, write_lines


@pytest.mark.parametrize("name", list(HUB_ROWS))
def test_the_hub_gives_the_questions_that_a_file_gives(
    name: DatasetName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write_lines(tmp_path / "hub" / "train.jsonl", [HUB_ROWS[name]])
    write_lines(tmp_path / "hub" / "test.jsonl", [HUB_ROWS[name]] * 2)
    (question,) = read_questions(DataSource(name=name, hub=str(tmp_path / "hub"), split="train"))
    assert question == read_one(name, tmp_path / "hub" / "train.jsonl")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("svamp", ("ChilleD/SVAMP", None)),
        ("gsm8k", ("openai/gsm8k", "main")),
        ("asdiv", ("EleutherAI/asdiv", None)),
        ("multiarith", ("ChilleD/MultiArith", None)),
        ("aqua", ("deepmind/aqua_rat", "raw")),
        ("commonsenseqa", ("tau/commonsense_qa", None)),
        ("strategyqa", ("ChilleD/StrategyQA", None)),
    ],
)
def test_the_usual_hub_ids_are_asked_for_with_split_and_revision(
    name: DatasetName, expected: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def load(hub_id: str, configuration: str | None, *, split: str, revision: str | None) -> list[Mapping[str, object]]:
        asked.extend([(hub_id, configuration), split, revision])
        return [HUB_ROWS[name]]

    monkeypatch.setattr("datasets.load_dataset", load)
    assert len(read_questions(DataSource(name=name, split="test", revision="abc"))) == 1
    assert asked == [expected, "test", "abc"]


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*arguments: object, **options: object) -> None:
        raise ConnectionError("Couldn't reach\nthe Hub")

    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises(ConfigError, match=r"^data svamp: ChilleD/SVAMP \(train\) .*Couldn't reach the Hub; .*$"):
        read_questions(DataSource(name="svamp"))


def test_a_split_that_the_hub_lacks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write_lines(tmp_path / "hub" / "train.jsonl", [SVAMP_ROW])
    with pytest.raises(ConfigError, match="Unknown split"):
        read_questions(DataSource(name="svamp", hub=str(tmp_path / "hub"), split="best"))
