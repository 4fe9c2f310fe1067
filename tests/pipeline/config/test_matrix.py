"""What a matrix asks for: which points there are, what they are called, and what is refused."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import ConfigError
from pipeline.config.load import load_config
from pipeline.config.matrix import LONGEST_NAME, Matrix, load_matrix, point_name
from pipeline.config.schema import RUN_NAME, schema_json
from pipeline.config.starter import starter_text
from tests.pipeline.config.test_schema import MINIMAL


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(MINIMAL)
    return path


def matrix_of(path: Path, text: str, *overrides: str) -> Matrix:
    path.write_text(f"{MINIMAL}matrix: {text}\n")
    found = load_matrix(path, overrides)
    assert found is not None
    return found


def names(path: Path, text: str) -> list[str]:
    return [point.name for point in matrix_of(path, text).points]


def complaint(path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        matrix_of(path, text, *overrides)
    return str(caught.value).replace(str(path), "run.yaml")


def test_a_file_without_matrix_is_one_point_of_its_own_name(file: Path) -> None:
    for overrides in ((), ("matrix=null",)):
        found = load_matrix(file, overrides)
        assert found.single and found.written is None
        assert [(point.name, point.values, point.config) for point in found.points] == [(found.name, {}, found.base)]


def test_a_mapping_is_a_product_and_a_list_a_union(file: Path) -> None:
    assert names(file, "{objective.beta: [1, 3], training.epochs: [2, 4.5]}") == [
        "beta=1,epochs=2", "beta=1,epochs=4.5", "beta=3,epochs=2", "beta=3,epochs=4.5",
    ]  # fmt: skip
    assert names(file, "[{objective.name: [dss, mmi]}, {objective.beta: [3]}]") == [
        "objective=dss", "objective=mmi", "beta=3",
    ]  # fmt: skip


def test_every_point_is_the_configuration_that_the_overrides_would_give(file: Path) -> None:
    (_, point) = matrix_of(file, "{objective.alignment: [last, {single: [2, 1]}], student.model: [a/b]}").points
    expected = load_config(file, ["objective.alignment={single: [2, 1]}", "student.model=a/b", f"name={point.name}"])
    assert point.config == expected
    assert point.values == {"objective.alignment": {"single": [2, 1]}, "student.model": "a/b"}


def test_the_file_without_its_matrix_is_a_configuration_by_itself(file: Path) -> None:
    found = matrix_of(file, "{objective.beta: [1, 3]}")
    assert found.base == load_config(file) and found.name == "small"


def test_what_is_saved_loads_back_to_the_same_points(file: Path, tmp_path: Path) -> None:
    found = matrix_of(file, "[{objective.alignment: [last, {single: [2, 1]}]}, {training.learning_rate: [1e-4]}]")
    saved = tmp_path / "saved.yaml"
    saved.write_text(found.yaml())
    assert load_matrix(saved) == found


def test_set_applies_to_all_points_and_can_replace_the_matrix(file: Path) -> None:
    points = matrix_of(file, "{objective.beta: [1, 3]}", "training.epochs=2").points
    assert [point.config.training.epochs for point in points] == [2, 2]
    (point,) = matrix_of(file, "{objective.beta: [1, 3]}", "matrix={objective.name: [dss]}").points
    assert point.config.objective.name == "dss"


def test_a_value_more_renames_no_point(file: Path) -> None:
    few = names(file, "{objective.beta: [1, 3], student.model: [a/b, c]}")
    more = names(file, "{objective.beta: [0.5, 1, 3], student.model: [z/b, a/b, c]}")
    assert set(few) < set(more) and len(more) == len(set(more)) == 9


def test_odd_and_long_values_are_hashed_and_stay_apart(file: Path) -> None:
    found = names(file, "{student.model: [org/model, other/model, 'a b', ./here, '10', \"" + "x" * 200 + '"]}')
    assert len(set(found)) == 6 and all(re.fullmatch(RUN_NAME, name) for name in found)
    assert re.fullmatch(r"student=model\.[0-9a-f]{8}", found[0])


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=300)
)


@given(
    st.dictionaries(st.sampled_from(["student.model", "rationales.engine_arguments.x", "a b.c"]), VALUES, min_size=1)
)
def test_any_value_makes_a_name_that_is_safe_as_a_folder(values: dict[str, str]) -> None:
    name = point_name(values)
    assert re.fullmatch(RUN_NAME, name) and len(name) <= LONGEST_NAME and name == point_name(dict(values))


@given(st.lists(st.text(max_size=40), min_size=2, max_size=2, unique=True))
def test_two_texts_never_share_a_name(texts: list[str]) -> None:
    assert point_name({"student.model": texts[0]}) != point_name({"student.model": texts[1]})


def test_unknown_key_in_a_matrix_is_named_once_with_its_line_and_the_nearest(file: Path) -> None:
    text = "\n  objective.btea: [1, 2, 3]"
    assert complaint(file, text) == "run.yaml:10: objective.btea: no such key; did you mean objective.beta?"


def test_wrong_value_is_named_with_its_own_line(file: Path) -> None:
    text = "\n  objective.name:\n    - dss\n    - dsss"
    assert complaint(file, text).startswith("run.yaml:12: objective.name: expected ")
    assert complaint(file, text).endswith("found 'dsss'; did you mean dss?")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "expected at least one mapping"),
        ("{}", "expected a mapping such as {objective.beta: [1, 3]}"),
        ("[3]", "matrix.0: expected a mapping such as"),
        ("{objective.beta: 3}", "matrix.objective.beta: expected a list of values, found 3"),
        ("{objective.beta: []}", "expected a list of values, found []"),
        ("{objective..beta: [1]}", "expected a key such as objective.beta"),
        ("{name: [a, b]}", "name cannot vary: it is the folder"),
        ("{store: [a, b]}", "store cannot vary: all points share one store"),
        ("{runs: [a, b]}", "runs cannot vary: it is no key but an option, --runs"),
        ("{matrix: [a, b]}", "matrix cannot vary"),
        ("{training.seeds: [[0], [1]]}", "training.seeds cannot vary: write `training: {seeds: [0, 1, 2]}`"),
        ("{objective: [{name: dss}], objective.beta: [1]}", "objective.beta: is part of objective, which varies too"),
        ("{objective.beta: [1, 1.0]}", "beta=1 stands there more than once"),
        ("[{objective.beta: [1]}, {objective.beta: [1, 2]}]", "beta=1 stands there more than once"),
        ("{objective.name: [dss], objective.beta: [1, 3]}", "train the same students, for to objective dss"),
        ("{objective.name: [dss], evaluation.prompts: [[explian]]}", "did you mean explain?"),
        ("{training.epochs: [" + ", ".join(map(str, range(1, 1002))) + "]}", "expected at most 1,000 points"),
    ],
)
def test_what_cannot_be_a_matrix_is_refused_with_the_reason(file: Path, text: str, expected: str) -> None:
    found = complaint(file, text)
    assert expected in found and found.startswith("run.yaml:9: ")


def test_a_key_that_varies_cannot_be_set_as_well(file: Path) -> None:
    found = complaint(file, "{objective.beta: [1, 3]}", "objective.beta=2")
    assert found.endswith("varies here and is one value by `--set objective.beta`; leave out one of the two")


def test_the_starter_file_shows_a_matrix_that_works(file: Path) -> None:
    head, found, example = starter_text().partition("# matrix:\n")
    file.write_text(f"{head}matrix:\n{example.replace('# ', '')}")
    matrix = load_matrix(file)
    assert found and matrix is not None
    assert [point.name for point in matrix.points] == [
        "objective=dss", "objective=mmi", "objective=molsaki,beta=0.3", "objective=molsaki,beta=1",
        "objective=molsaki,beta=3",
    ]  # fmt: skip


def test_the_schema_knows_the_matrix_for_editors() -> None:
    assert "matrix" in json.loads(schema_json())["properties"]


def test_a_misspelled_matrix_is_shown_the_right_word(file: Path) -> None:
    file.write_text(f"{MINIMAL}matrx: {{objective.beta: [1]}}\n")
    with pytest.raises(ConfigError, match="did you mean matrix"):
        load_config(file)
