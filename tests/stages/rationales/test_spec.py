"""What separates stores and what lets experiments share one; which rule marks a question."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from cache.fingerprints import Spec, fingerprint
from cache.rounding import kept_bits
from data.errors import ConfigError
from data.marking import MARKING_RULES, Keywords, Numbers, Regex
from data.records import Question
from data.settings import RationaleFields
from stages.attention.select import marking_rule
from stages.attention.spec import attention_slug, attention_spec
from stages.models.identity import ModelIdentity
from stages.rationales.spec import rationale_slug, rationale_spec
from stages.settings import AttentionSettings, RationaleSettings, TeacherSettings

HUB = ModelIdentity(source="hub", path="Qwen/Qwen2.5-7B-Instruct", revision="0" * 40, tokenizer="1" * 64)
FOLDER = ModelIdentity(source="folder", path="/models/tiny teacher", revision="2" * 64, tokenizer="1" * 64)
TEACHER = TeacherSettings(model="Qwen/Qwen2.5-7B-Instruct")
RATIONALES, ATTENTION = RationaleSettings(), AttentionSettings()
QUESTION = Question(
    id="1", dataset="made-up", text="?", answer="A", answer_kind="choice", choices=("a",), keywords=("bank", "river")
)


def rationales(**changes: object) -> Spec:
    return rationale_spec(HUB, TEACHER, replace(RATIONALES, **changes))  # type: ignore[arg-type]


def attention(**changes: object) -> Spec:
    return attention_spec(HUB, TEACHER, replace(ATTENTION, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"shots": 2},
        {"chat": True},
        {"temperature": 0.7},
        {"max_tokens": 100},
        {"engine_arguments": {"max_model_len": 1024}},
        {"engine_arguments": {"hf_overrides": {"rope_theta": 5e5}}},
        {"engine": "openai", "author": "gpt-x"},
    ],
)
def test_what_changes_rationales_separates_their_stores(changes: dict[str, object]) -> None:
    assert fingerprint(rationales(**changes)) != fingerprint(rationales())


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": "transformers"},
        {"engine": "openai", "server": "http://here/v1", "served_model": "teacher", "server_requests": 3},
        {"author": "gpt-x"},  # nobody is asked for it
        {"restarts": 0},
        {"piece": 7},
        {"second_phase": False},
        {"seed": 5},  # greedy decoding draws nothing
        {"top_p": 0.5},
        {"engine_arguments": {"gpu_memory_utilization": 0.5, "enforce_eager": True, "tensor_parallel_size": 2}},
        {"engine_arguments": {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}}},
    ],
)
def test_what_does_not_change_rationales_leaves_them_in_one_store(changes: dict[str, object]) -> None:
    assert fingerprint(rationales(**changes)) == fingerprint(rationales())


SPECULATIVE = {"engine_arguments": {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}}}


@pytest.mark.parametrize("changes", [{"seed": 5}, {"top_p": 0.5}, SPECULATIVE])
def test_seed_nucleus_and_guessing_ahead_count_when_sampling(changes: dict[str, object]) -> None:
    assert rationales(temperature=1.0, **changes) != rationales(temperature=1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": "lines"},
        {"critical": "keywords"},
        {"critical": "regex", "pattern": "a+"},
        {"max_length": 100},
        {"keep_bits": 7},
    ],
)
def test_what_changes_attention_separates_its_stores(changes: dict[str, object]) -> None:
    assert fingerprint(attention(**changes)) != fingerprint(attention())


@pytest.mark.parametrize(
    "changes",
    [{"piece": 7}, {"batch_tokens": 100}, {"keywords": ("unused",)}, {"pattern": "a"}, {"keep_bits": 10}],
)
def test_what_does_not_change_attention_leaves_it_in_one_store(changes: dict[str, object]) -> None:
    assert fingerprint(attention(**changes)) == fingerprint(attention())


def test_rules_of_marking_separate_stores_of_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    before = attention()
    monkeypatch.setattr("stages.attention.spec.MARKING_RULES", MARKING_RULES + 1)
    assert fingerprint(attention()) != fingerprint(before)


def test_weights_tokenizer_and_number_format_separate_stores_and_the_device_does_not() -> None:
    base = attention()
    assert attention_spec(replace(HUB, revision="3" * 40), TEACHER, ATTENTION) != base
    assert attention_spec(replace(HUB, tokenizer="3" * 64), TEACHER, ATTENTION) != base
    assert attention_spec(HUB, replace(TEACHER, dtype="float32"), ATTENTION) != base
    assert attention_spec(HUB, replace(TEACHER, device="cpu"), ATTENTION) == base
    without = attention_spec(HUB, TEACHER, replace(ATTENTION, begin_token=False))
    assert without == {name: value for name, value in base.items() if name != "begin"} != base


def test_a_folder_counts_by_its_content_wherever_it_lies() -> None:
    moved = replace(FOLDER, path="/elsewhere/model")
    assert attention_spec(FOLDER, TEACHER, ATTENTION) == attention_spec(moved, TEACHER, ATTENTION)
    assert attention_spec(FOLDER, TEACHER, ATTENTION)["model"] == "sha256:" + "2" * 64


def test_specs_are_json_that_people_can_read() -> None:
    assert json.loads(json.dumps(rationales())) == rationales()
    assert attention()["model"] == "Qwen/Qwen2.5-7B-Instruct@" + "0" * 40
    assert {"heads": "mean", "steps": "periods", "critical": {"rule": "numbers"}, "rounding": None}.items() <= (
        attention().items()
    )


def test_rounding_is_written_as_the_store_reads_it() -> None:
    assert attention(keep_bits=7)["rounding"] == {"bitround": 7}
    assert [kept_bits(attention(keep_bits=bits)) for bits in (None, 1, 9, 10)] == [10, 1, 9, 10]


def test_imported_rationales_depend_on_the_file_and_not_on_the_teacher(tmp_path: Path) -> None:
    file = tmp_path / "palm.jsonl"
    file.write_text("{}\n")
    settings = RationaleSettings(engine="file", path=str(file))
    before = rationale_spec(HUB, TEACHER, settings)
    assert rationale_spec(FOLDER, TEACHER, replace(settings, shots=1)) == before
    assert (
        "fields" not in before and rationale_spec(HUB, TEACHER, replace(settings, fields=RationaleFields())) == before
    )
    named = replace(settings, fields=RationaleFields(rationale="why"))
    assert rationale_spec(HUB, TEACHER, named) == before | {
        "fields": {"id": "id", "rationale": "why", "answer": "answer"}
    }
    file.write_text("{}\n{}\n")
    assert rationale_spec(HUB, TEACHER, settings) != before
    assert rationale_slug(HUB, settings) == "palm"


def test_rationales_of_an_author_depend_on_its_name_and_not_on_the_teacher() -> None:
    settings = RationaleSettings(engine="openai", author="lab/gpt-x", server="http://here/v1")
    spec = rationale_spec(HUB, TEACHER, settings)
    elsewhere = replace(settings, server="http://there/v1")
    assert rationale_spec(FOLDER, replace(TEACHER, dtype="float32"), elsewhere) == spec
    assert rationale_spec(HUB, TEACHER, replace(settings, author="gpt-y")) != spec
    assert (spec["source"], spec["author"]) == ("author", "lab/gpt-x") and "model" not in spec
    assert rationale_slug(HUB, settings) == "gpt-x-4-shot"


def test_what_a_chat_template_is_told_counts_where_it_is_not_what_it_is_told_anyway() -> None:
    chat = replace(RATIONALES, chat=True)
    told = replace(chat, template_arguments={"enable_thinking": False})
    assert rationale_spec(HUB, TEACHER, told) == rationale_spec(HUB, TEACHER, chat) | {
        "template": {"arguments": {"enable_thinking": False}}
    }
    dated = rationale_spec(HUB, TEACHER, replace(chat, template_date=date(2024, 7, 26)))
    assert dated["template"] == {"date": "2024-07-26"}
    assert rationale_spec(HUB, TEACHER, replace(told, chat=False)) == rationale_spec(HUB, TEACHER, RATIONALES)
    author = replace(told, engine="openai", author="lab/gpt-x")
    with pytest.raises(ConfigError, match="chat_template_kwargs"):
        rationale_spec(HUB, TEACHER, author)


def test_code_of_a_model_counts_where_it_may_run(tmp_path: Path) -> None:
    trusting = replace(TEACHER, trust_remote_code=True)
    folder = replace(FOLDER, path=str(tmp_path))
    for make in (
        lambda identity, teacher: rationale_spec(identity, teacher, RATIONALES),
        lambda identity, teacher: attention_spec(identity, teacher, ATTENTION),
    ):
        assert "trust_remote_code" not in make(folder, TEACHER)
        assert make(HUB, trusting) == {**make(HUB, TEACHER), "trust_remote_code": True}
        assert make(folder, trusting) == {**make(folder, TEACHER), "trust_remote_code": True}
        (tmp_path / "modeling.py").write_text("first = 1")
        first = make(folder, trusting)
        (tmp_path / "modeling.py").write_text("second = 2")
        assert make(folder, trusting) != first
        (tmp_path / "modeling.py").unlink()


@pytest.mark.parametrize("path", [None, "/no/such/file.jsonl"])
def test_an_import_without_its_file_is_a_configuration_error(path: str | None) -> None:
    with pytest.raises(ConfigError, match=r"rationales\.path"):
        rationale_spec(HUB, TEACHER, RationaleSettings(engine="file", path=path))


def test_slugs_are_names_for_people_without_blanks() -> None:
    assert rationale_slug(HUB, RATIONALES) == "Qwen2.5-7B-Instruct-4-shot"
    assert attention_slug(FOLDER, ATTENTION) == "tiny-teacher-numbers"


def test_the_rule_for_critical_words_follows_the_settings() -> None:
    assert marking_rule(ATTENTION, QUESTION) == Numbers()
    assert marking_rule(replace(ATTENTION, critical="regex", pattern="[a-z]+"), QUESTION) == Regex("[a-z]+")


def test_keywords_of_settings_and_question_are_joined_without_repetition() -> None:
    settings = replace(ATTENTION, critical="keywords", keywords=("money", "bank"))
    assert marking_rule(settings, QUESTION) == Keywords(("money", "bank", "river"))


def test_a_regex_rule_without_pattern_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"attention\.pattern"):
        marking_rule(replace(ATTENTION, critical="regex"), QUESTION)
