"""Lengths in tokens, by a tokenizer of which every byte is one token."""

from pathlib import Path

import pytest

from data.check import Found
from data.errors import ModelError
from data.prompts import rationale_prompt
from data.records import Question
from pipeline.check.lengths import Lengths, Measure
from pipeline.config.schema import Config
from stages.runtime.progress import SilentProgress
from tests.fakes import tiny_tokenizer


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A teacher and a student that are tokenizers alone; the teacher's adds a token in front."""
    tiny_tokenizer(adds_begin=True).save_pretrained(tmp_path / "teacher")
    tiny_tokenizer().save_pretrained(tmp_path / "student")
    return tmp_path


def config(models: Path, **sections: object) -> Config:
    return Config.model_validate(
        {
            "name": "a",
            "data": {"train": [{"name": "jsonl", "path": "a.jsonl"}]},
            "teacher": {"model": str(models / "teacher")},
            "student": {"model": str(models / "student"), "max_length": 40},
            **sections,
        }
    )


def questions(*lengths: int) -> list[Question]:
    return [
        Question(id=f"q-{length}", dataset="d", text="x" * length, answer="5", answer_kind="number")
        for length in lengths
    ]


def measured(config: Config, asked: list[Question]) -> tuple[dict[str, Lengths], list[str]]:
    notes: list[str] = []
    found = Measure(progress=SilentProgress()).lengths(config, asked, notes)
    return {each.text: each for each in found}, notes


def test_lengths_are_those_of_the_texts_that_models_read(models: Path) -> None:
    asked = questions(10, 20, 30)
    arguments = {"max_model_len": 1 + len(rationale_prompt(asked[1], shots=0))}
    found, notes = measured(
        config(models, rationales={"shots": 0, "engine_arguments": arguments}, attention={"max_length": 1 + 30 + 17}),
        asked,
    )
    assert notes == []
    # With the begin token in front: question and line break. The longest leaves no room in the window, nor does the one
    # that fills it.
    prompt = found["prompt"]
    assert (prompt.median, prompt.longest, prompt.limit) == (22, 32, 21)
    assert prompt.over == Found(count=2, first=("q-20", "q-30"))
    # begin token, question, line break, "The answer is 5."
    assert (found["record"].median, found["record"].longest, found["record"].over.count) == (38, 48, 0)
    # "predict: ", question, line break, "5", end token
    assert (found["predict"].median, found["predict"].longest) == (9 + 20 + 3, 42)
    assert (found["predict"].limit, found["predict"].over) == (40, Found(count=1, first=("q-30",)))
    assert found["explain"].median == 9 + 20 + 1 + 16 + 1


def test_all_but_one_of_twenty_are_no_longer_than_what_95_in_100_have_at_most(models: Path) -> None:
    found, _ = measured(config(models), questions(*range(1, 21)))
    assert found["predict"].most == 9 + 19 + 3
    assert found["predict"].median == 9 + 10.5 + 3


def test_a_tokenizer_that_is_not_there_is_a_note_and_the_other_is_measured(models: Path) -> None:
    found, notes = measured(config(models, teacher={"model": str(models / "none")}), questions(10))
    assert set(found) == {"predict", "explain"}
    (note,) = notes
    assert note.startswith(f"lengths under {models / 'none'} are not known: model {models / 'none'}: its tokenizer")


def test_prompts_have_no_length_where_the_teacher_writes_nothing(models: Path) -> None:
    found, notes = measured(config(models, rationales={"engine": "file", "path": "r.jsonl"}), questions(10))
    assert "prompt" not in found and "record" in found
    assert notes == ["the teacher writes no rationales here, so the length of prompts is not known"]


def test_a_chat_without_template_is_an_error_as_in_a_run(models: Path) -> None:
    with pytest.raises(ModelError, match="chat template"):
        measured(config(models, rationales={"chat": True}), questions(10))
