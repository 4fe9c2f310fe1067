"""What a configuration file may say, and how each mistake in it is reported."""

import json
import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import ConfigError
from pipeline.config.document import read_document, to_yaml
from pipeline.config.load import load_config, resolved_yaml
from pipeline.config.schema import Config, schema_json
from pipeline.config.starter import starter_text, write_starter
from stages.settings import SinglePair
from stages.student.objective import objective_of

MINIMAL = """\
name: small
data:
  train:
    - {name: svamp, path: questions.jsonl}
teacher:
  model: big
student:
  model: little
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(MINIMAL)
    return path


def complaint(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value).replace(str(path), "run.yaml")


def test_defaults_are_the_methods(file: Path) -> None:
    config = load_config(file)
    objective = objective_of(config.objective)
    assert (objective.alpha, objective.beta) == (0.5, 1.0)
    assert (config.objective.tau_teacher, config.objective.tau_student) == (0.1, 0.5)
    assert config.training.seeds == (0,)


def test_store_lies_in_the_users_cache_directory_unless_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert load_config(file).store == Path("/somewhere/molsaki")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert load_config(file).store == Path("/home/ada/.cache/molsaki")
    assert load_config(file, ["store=here"]).store == Path("here")


def test_unknown_key_is_named_with_file_line_and_nearest_key(file: Path) -> None:
    file.write_text(MINIMAL + "training:\n  epoch: 3\n")
    assert complaint(file) == "run.yaml:10: training.epoch: no such key; did you mean training.epochs?"


def test_key_in_the_wrong_place_is_shown_its_section(file: Path) -> None:
    file.write_text(MINIMAL + "learning_rate: 1e-4\n")
    assert "did you mean training.learning_rate?" in complaint(file)


def test_key_like_no_other_gets_all_valid_keys(file: Path) -> None:
    assert complaint(file, "data.qqq=1").endswith("no such key; valid keys are train, dev, test")


def test_every_problem_has_a_line_of_its_own(file: Path) -> None:
    file.write_text(MINIMAL.replace("model: big", "modl: big") + "training: {epochs: many, warmup: 1}\nmore: {}\n")
    lines = complaint(file).splitlines()
    assert len(lines) == 5
    assert "run.yaml:9: training.epochs: expected a valid number, found 'many'" in lines
    assert "run.yaml:9: training.warmup: expected less than 1, found 1" in lines


def test_missing_key_is_described(file: Path) -> None:
    file.write_text(MINIMAL.replace("  model: big\n", "  dtype: float32\n"))
    expected = "teacher.model: missing (Hub id, or a local folder with config, tokenizer and safetensors)"
    assert complaint(file) == f"run.yaml:5: {expected}"


def test_wrong_choice_suggests_the_nearest(file: Path) -> None:
    assert complaint(file, "rationales.engine=transformer").endswith("found 'transformer'; did you mean transformers?")


def test_number_in_place_of_text_asks_for_quotes(file: Path) -> None:
    assert complaint(file, "name=7") == "--set name: name: expected text; put it in quotes, found 7"


def test_list_without_entries_is_one_complaint(file: Path) -> None:
    assert complaint(file, "training.seeds=[]").endswith("training.seeds: expected at least one entry, found []")
    assert complaint(file, "data.train.0.limt=1").count("\n") == 0


def test_union_is_one_complaint(file: Path) -> None:
    line = complaint(file, "teacher.quantization.bits=[1]")
    assert line.count("\n") == 0 and "bits: expected" in line and line.endswith("found [1]")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "-dash", "a b", "x" * 101])
def test_name_must_be_a_safe_folder_name(file: Path, name: str) -> None:
    file.write_text(MINIMAL.replace("name: small", f"name: {json.dumps(name)}"))
    assert "name: " in complaint(file)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("attention.critical=regex", "attention.pattern: missing"),
        ("attention.pattern='('", "expected a regular expression"),
        ("attention.piece=4097", "expected at most 4,096, found 4,097"),
        ("attention.keep_bits=0", "attention.keep_bits: expected greater than or equal to 1, found 0"),
        ("attention.keep_bits=11", "attention.keep_bits: expected less than or equal to 10, found 11"),
        ("attention.keep_bits=x", "attention.keep_bits: expected a valid integer, found 'x'"),
        ("rationales.engine=file", "rationales.path: missing"),
        ("rationales.samples=4", "rationales.samples: expected 1 with rationales.temperature 0"),
        ("rationales={engine: file, path: r, samples: 4}", "expected 1 with rationales.engine `file`, found 4"),
        ("rationales={engine: file, path: r, keywords: true}", "needs an engine that can be asked"),
        ("attention={critical: keywords, keyword_sources: [teacher]}", "set rationales.keywords to true"),
        ("attention.keyword_sources=[model]", "attention.keyword_sources.0: expected 'data' or 'teacher'"),
        ("training.seeds=[1, 2, 1]", "expected different seeds"),
        ("training.epochs=.inf", "expected a finite number"),
        ("rationales.engine_arguments.hf_token=abc", "a secret"),
        ("rationales.engine_arguments.a={b: [{api_key: abc}]}", "rationales.engine_arguments.a.b.api_key: a secret"),
        ("evaluation.engine_arguments.trust_remote_code=true", "is said by teacher.trust_remote_code"),
        ("rationales.engine_arguments.api-key=abc", "a secret"),
        ("rationales.engine_arguments.a={b: [1, .nan]}", "a.b.1: expected a finite number, found nan"),
        ("evaluation.engine_arguments.a=-.inf", "expected a finite number, found -inf"),
        ("rationales.engine_arguments.extra_headers={Authorization: abc}", "Authorization: a secret"),
        ("rationales.engine_arguments.model=other", "is said by teacher.model"),
        ("evaluation.engine_arguments.revision=other", "is said by student.revision"),
        ("rationales={engine: openai, author: a, engine_arguments: {n: 2}}", "n: every request says it by itself"),
        ("rationales={engine: openai, author: a, engine_arguments: {seed: 2}}", "seed: is said by rationales.seed"),
        ("rationales={engine: openai, author: a, engine_arguments: {model: b}}", "is said by rationales.author"),
        ("rationales.server=http://me:secret@host/v1", "rationales.server: holds a user or a password"),
        ("rationales.server=https://host/v1?api_key=abc", "rationales.server: expected an address without"),
        ("rationales.author=gpt-x", "needs `engine: openai`"),
        ("rationales.temperature=null", "rationales.temperature: expected a number; null leaves it to the server of"),
        ("rationales={engine: openai, top_p: null}", "rationales.top_p: expected a number"),
        ("rationales={engine: vllm, author: a, seed: null}", "rationales.seed: expected a number"),
        ("more_rationales=[{rationales: {seed: null}}]", "more_rationales.0.rationales.seed: expected a number"),
        ("rationales.server_limit_field=n", "expected 'max_completion_tokens' or 'max_tokens', found 'n'"),
        ("rationales={engine: openai, author: a, served_model: b}", "rationales.served_model: means that the server"),
    ],
)
def test_values_that_do_not_go_together_are_refused(file: Path, override: str, expected: str) -> None:
    assert expected in complaint(file, override)


@pytest.mark.parametrize("key", ["rationales.engine_arguments.hf_token", "rationales.server"])
def test_a_secret_is_not_repeated(file: Path, key: str) -> None:
    line = complaint(file, f"{key}=http://me:hunter2@host")
    assert line.startswith(f"--set {key}: {key}: ") and "hunter2" not in line


@pytest.mark.parametrize(
    "override",
    [
        "rationales.api_key=hunter2",
        "teacher.token=hunter2",
        "teacher={token: hunter2}",
        "rationales.server=me:hunter2@host",
        "rationales={engine_arguments: {hf_token: hunter2",
        "rationales.engine_arguments.hf_token=[hunter2",
    ],
)
def test_a_secret_in_the_wrong_place_is_repeated_neither_in_the_complaint_nor_in_its_traceback(
    file: Path, override: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file, [override])
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_arguments_of_an_engine_may_be_nested(file: Path) -> None:
    arguments = {"hf_overrides": {"rope_parameters": {"factor": 2.0}, "list": [1, "a", None]}, "quantization": None}
    config = load_config(file, [f"rationales.engine_arguments={json.dumps(arguments)}"])
    assert config.rationales.engine_arguments == arguments


def test_samples_and_the_teachers_key_words_go_together_with_what_they_need(file: Path) -> None:
    config = load_config(
        file,
        [
            "rationales={samples: 4, temperature: 0.7, keywords: true}",
            "attention={critical: keywords, keyword_sources: [teacher]}",
        ],
    )
    assert (config.rationales.samples, config.attention.keyword_sources) == (4, ("teacher",))
    assert load_config(file, ["attention={critical: keywords, keyword_sources: [teacher], keywords: [fig]}"])


def test_override_parses_yaml_and_indexes_lists(file: Path) -> None:
    overrides = ["training.seeds=[3, 4]", "training.learning_rate=1e-4", "data.train.0.limit=5", "data.train[0].skip=2"]
    config = load_config(file, overrides)
    assert config.training.seeds == (3, 4)
    assert config.training.learning_rate == 1e-4
    assert (config.data.train[0].limit, config.data.train[0].skip) == (5, 2)


def test_later_override_wins(file: Path) -> None:
    assert load_config(file, ["training.epochs=1", "training.epochs=2"]).training.epochs == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.epochs", "expected key=value"),
        ("=3", "expected key=value"),
        ("data.train.1.limit=3", "data.train has 1 entries"),
        ("name.first=x", "name is 'small'"),
        ("training.epochs=[", "not valid YAML"),
        ("trainig.epochs=3", "trainig: no such key; did you mean training?"),
    ],
)
def test_override_that_cannot_be_applied_is_named(file: Path, override: str, expected: str) -> None:
    line, name = complaint(file, override), override.partition("=")[0]
    assert line.startswith(f"--set {name or override}: ") and expected in line and "\n" not in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: [1\n", "run.yaml:2: not valid YAML"),
        ("name: a\nname: b\n", "run.yaml:2: name: the key is there twice"),
        ("- a\n", "expected a mapping"),
        ("&a [*a]\n", "expected a mapping"),
        ("name: &a [*a]\n", "an alias that contains itself"),
        ("? [a]\n: b\n", "a key must be a word"),
    ],
)
def test_file_that_is_no_mapping_is_refused_with_its_line(file: Path, text: str, expected: str) -> None:
    file.write_text(text)
    assert expected in complaint(file)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    assert "no such configuration file" in complaint(tmp_path / "none.yaml")
    assert "cannot be read" in complaint(tmp_path)


def test_empty_section_means_defaults(file: Path) -> None:
    file.write_text(MINIMAL + "training:\n  # epochs: 3\n")
    assert load_config(file).training.epochs == 5


def test_home_is_expanded_and_nothing_else(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    config = load_config(file, ["teacher.model=~/models/a", "data.train.0.path=~/q.jsonl", "student.model=$HOME/b"])
    assert config.teacher.model == "/home/ada/models/a"
    assert config.data.train[0].path == "/home/ada/q.jsonl"
    assert config.student.model == "$HOME/b"


def test_resolved_file_loads_back_to_the_equal_configuration(file: Path, tmp_path: Path) -> None:
    overrides = ["rationales.engine_arguments={a: '1e-4', b: 1e-4, c: 'yes', d: true, e: '2025-01-31', f: {g: [1.0]}}"]
    config = load_config(file, [*overrides, "attention.keywords=['null', ' x ', '12']", "training.seeds=[2, 3]"])
    saved = tmp_path / "saved.yaml"
    saved.write_text(resolved_yaml(config))
    assert load_config(saved) == config


@given(st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.floats(allow_nan=False) | st.booleans()))
@settings(max_examples=60, deadline=None)
def test_scalars_survive_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]
) -> None:
    printable = {key: value for key, value in values.items() if (key + str(value)).isprintable() and key != "<<"}
    path = tmp_path_factory.mktemp("yaml") / "a.yaml"
    path.write_text(to_yaml({"values": printable}), encoding="utf-8")  # type: ignore[dict-item]
    assert read_document(path).tree == {"values": printable}


def test_starter_file_loads_and_is_all_defaults(tmp_path: Path) -> None:
    path = tmp_path / "starter.yaml"
    write_starter(path)
    started = load_config(path)
    defaults = Config.model_validate(
        {"name": "a", **{k: started.model_dump()[k] for k in ("data", "teacher", "student")}}
    )
    for section in ("rationales", "attention", "objective", "training", "evaluation"):
        assert getattr(started, section) == getattr(defaults, section)


def test_starter_file_is_the_same_with_all_comments_removed(tmp_path: Path) -> None:
    path = tmp_path / "starter.yaml"
    uncommented = starter_text().replace("# store: ~", "# store_: ~")
    path.write_text(uncommented)
    commented = load_config(path)
    lines = [line.replace("# ", "", 1) if _is_default(line) else line for line in starter_text().splitlines()]
    path.write_text("\n".join(lines))
    assert load_config(path, [f"store={commented.store}"]) == commented


def _is_default(line: str) -> bool:
    comment, found, rest = line.partition("# ")
    key = rest.partition(":")[0]
    return bool(found) and not comment.strip() and key.isidentifier() and key.islower() and comment != "    "


def test_starter_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        write_starter(path)
    assert path.read_text() == "mine"


def test_schema_describes_every_key() -> None:
    schema = json.loads(schema_json())
    sections = [schema, *schema["$defs"].values()]
    for section in sections:
        for key, value in section.get("properties", {}).items():
            assert "description" in value or "$ref" in value, key


def test_an_objective_that_is_none_is_refused_with_the_nearest(file: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"objective\.name: .*fine-tune-cot.*found 'fine-tune'; did you mean fine-tune-cot\?"
    ):
        load_config(file, ["objective.name=fine-tune"])


def test_terms_are_added_to_a_preset_or_take_the_place_of_its_own(file: Path) -> None:
    weight = "objective.terms.attention.weight=3"
    added = objective_of(load_config(file, ["objective.name=fine-tune-cot", weight]).objective)
    assert (added.tasks, added.weight("attention"), added.needs_attention) == (("explain",), 3.0, True)
    replaced = objective_of(load_config(file, [weight, "objective.beta=7"]).objective)
    assert replaced.weight("attention") == 3.0
    both = load_config(file, ["objective.terms={attention: {rows: softmax}, mutual_information: {}}"])
    assert objective_of(both.objective).terms.keys() == {"attention", "mutual_information"}


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["objective.terms.soft-labels.weight=0.3"], r"did you mean objective\.terms\.soft_labels\?"),
        (["objective.terms.attention.weigth=1"], r"did you mean objective\.terms\.attention\.weight\?"),
        (
            ["objective.terms.attention.weight=1", "objective.tau_student=3"],
            r"objective\.tau_student: is not read beside objective\.terms\.attention; set it there, as tau_student",
        ),
        (
            ["objective.name=answer-only", "objective.terms.attention.weight=1"],
            r"objective\.terms\.attention: needs explain among the tasks, which are predict",
        ),
        (["objective.tasks=[guess]"], r"objective\.tasks.*'predict' or 'explain', found 'guess'"),
        (["objective.tasks=[]"], r"objective\.tasks: expected at least one entry"),
        (["objective.terms.soft_labels.weight=1.5"], r"objective\.terms\.soft_labels\.weight"),
        (["objective.options={power: 2}"], r"objective\.options: molsaki has none"),
    ],
)
def test_terms_that_do_not_fit_are_refused_by_their_key(file: Path, overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        load_config(file, overrides)


def test_a_mentor_is_asked_by_its_own_prompt_or_refused_by_the_key_that_says_otherwise(file: Path) -> None:
    alone = "as_student: true, shots: 0, second_phase: false"
    config = load_config(file, [f"rationales={{engine: transformers, {alone}}}"])
    assert config.rationales.as_student and not load_config(file).rationales.as_student
    for other, line in (
        (
            "shots: 2",
            "rationales.shots: expected 0 with rationales.as_student, which asks by a prompt of its own, found 2",
        ),
        ("chat: true", "rationales.chat: expected false with rationales.as_student"),
        ("keywords: true", "rationales.keywords: expected false with rationales.as_student"),
        ("second_phase: true", "rationales.second_phase: expected false with rationales.as_student"),
        ("engine: file, path: r.jsonl", "rationales.as_student: needs an engine that can be asked"),
    ):
        name = other.partition(":")[0]
        rest = ", ".join(part for part in f"engine: transformers, {alone}".split(", ") if not part.startswith(name))
        assert line in complaint(file, f"rationales={{{rest}, {other}}}")


def test_layers_are_paired_by_name_or_by_number(file: Path) -> None:
    assert load_config(file, ["objective.alignment=uniform"]).objective.alignment == "uniform"
    config = load_config(file, ["objective.alignment={single: [3, 1]}"])
    assert config.objective.alignment == SinglePair(single=(3, 1))
    with pytest.raises(ConfigError, match=r"objective\.alignment"):
        load_config(file, ["objective.alignment={single: [0, 1]}"])
    with pytest.raises(ConfigError, match=r"did you mean uniform\?"):
        load_config(file, ["objective.alignment=unifrm"])


def test_prompts_that_an_objective_does_not_teach_cannot_be_all_that_is_asked(file: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"evaluation\.prompts: expected predict, all that objective.name answer-only"
    ):
        load_config(file, ["objective.name=answer-only", "evaluation.prompts=[explain]"])
    load_config(file, ["objective.name=answer-only"])
