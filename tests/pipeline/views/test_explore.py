"""The explorer's data: chosen as asked, no larger than asked, and every number the one that the store holds."""

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from cache.keys import record_key
from cache.student_attention import write_student_attention
from data.errors import ConfigError, DamagedCacheError
from data.marking import mark
from pipeline.views import explore
from pipeline.views.choose import Chosen, choose
from pipeline.views.explore import Explored, Selected, look_at, packed, selected_keys, write_explorer
from stages.figures.attention_shares import record_layer_weights
from tests.pipeline.conftest import Experiment
from tests.pipeline.store.test_commands import plausible_block
from tests.pipeline.views.explorer_records import (
    FIGS,
    HOSTILE,
    LAYERS,
    PENS,
    RECORDS,
    STUDENT_LAYERS,
    explored,
    store_of,
    student_looks_of,
)


def unpacked(text: str, layers: int, steps: int, words: int) -> np.ndarray:
    """What the page's script does, in numpy."""
    values = np.frombuffer(zlib.decompress(base64.b64decode(text), -zlib.MAX_WBITS), dtype="<f2")
    return np.moveaxis(values.reshape(steps, words, layers), -1, 0)


def records_in(page: Path) -> list[dict[str, Any]]:
    (found,) = re.findall(r'<script type="application/json" id="explored">(.*?)</script>', page.read_text(), re.DOTALL)
    records: list[dict[str, Any]] = json.loads(found)
    return records


def students_in(page: Path) -> list[dict[str, list[str]]]:
    """Of each record the students, seeds by the name of their run."""
    return [{run: list(found) for run, found in record.get("students", {}).items()} for record in records_in(page)]


@given(
    st_numpy.arrays(
        np.float16,
        st_numpy.array_shapes(min_dims=3, max_dims=3, max_side=6),
        elements=st.floats(0, 60000, width=16),
    )
)
def test_packing_keeps_every_bit(attention: np.ndarray):
    np.testing.assert_array_equal(unpacked(packed(attention), *attention.shape), attention)


def test_a_page_holds_what_the_store_and_the_students_hold(tmp_path: Path):
    made = explored(tmp_path)
    page = tmp_path / "page.html"
    assert write_explorer(made, Selected(), page).shown == len(RECORDS)
    store = made.chosen.attention
    for record, marked in zip(records_in(page), RECORDS, strict=True):
        key = record_key(marked)
        assert (record["key"], record["text"], record["rationale"]) == (key, marked.text, marked.rationale_start)
        assert record["steps"] == [list(span) for span in marked.step_spans]
        assert record["words"] == [list(span) for span in marked.critical_spans]
        shape = len(marked.step_spans), len(marked.critical_spans)
        np.testing.assert_array_equal(unpacked(record["teacher"]["packed"], LAYERS, *shape), store[key])
        np.testing.assert_allclose(record["teacher"]["weights"], record_layer_weights(store[key], 0.1), rtol=1e-5)
        for seed, looks in record.get("students", {made.name: {}})[made.name].items():
            for when, look in looks.items():
                expected = made.runs[made.name][int(seed)][key][when]
                found = unpacked(look["packed"], STUDENT_LAYERS, *shape)
                np.testing.assert_array_equal(found, expected.attention)
                np.testing.assert_allclose(look["weights"], expected.layer_weights, rtol=1e-5)
    assert students_in(page) == [{made.name: ["0", "1"]}] * 2 + [{}] * 6


def test_records_are_chosen_by_key_text_and_chance(tmp_path: Path):
    made = explored(tmp_path, students=())
    keys = [record_key(marked) for marked in RECORDS]
    assert selected_keys(made, Selected()) == keys
    assert selected_keys(made, Selected(search="ANN HAS")) == keys[:1]
    (tmp_path / "keys.txt").write_text(f"# two\n{keys[4]}\n{keys[1]}\n")
    assert selected_keys(made, Selected(keys=tmp_path / "keys.txt")) == [keys[4], keys[1]]
    shuffled = selected_keys(made, Selected(seed=1))
    assert shuffled != keys and sorted(shuffled) == sorted(keys)
    assert shuffled == selected_keys(made, Selected(seed=1)) != selected_keys(made, Selected(seed=2))
    with pytest.raises(ConfigError, match="--search zebra: no record of tiny-"):
        selected_keys(made, Selected(search="zebra"))
    (tmp_path / "keys.txt").write_text("0" * 64)
    with pytest.raises(ConfigError, match="none of 8 keys begins so"):
        selected_keys(made, Selected(keys=tmp_path / "keys.txt"))


def test_what_students_were_asked_about_comes_first(tmp_path: Path):
    made = explored(tmp_path)
    turned = Explored(chosen=Chosen(attention=made.chosen.attention, keys=made.chosen.keys[::-1]), runs=made.runs)
    found = selected_keys(turned, Selected())
    assert found == [record_key(PENS), record_key(FIGS), *made.chosen.keys[:1:-1]]


def test_as_many_records_as_fit_unless_a_number_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    questions = [f"Ann has {number} figs and finds 2 in the street. How many?" for number in range(300)]
    made = explored(tmp_path, [mark(one, "She has 2 more.") for one in questions], students=())
    monkeypatch.setattr(explore, "LARGEST", explore.OF_PAGE + 50_000)
    page = tmp_path / "page.html"
    some = write_explorer(made, Selected(), page)
    assert 20 < some.shown < some.wanted == 300
    assert explore.LARGEST - 20_000 - 1000 < some.bytes + (explore.OF_PAGE - frame(tmp_path)) <= explore.LARGEST
    assert f"{some.shown} records of 300" in page.read_text()
    assert write_explorer(made, Selected(records=300), page).shown == len(records_in(page)) == 300
    assert write_explorer(made, Selected(records=7), page).shown == len(records_in(page)) == 7


def frame(folder: Path) -> int:
    """Bytes of a page beside its records."""
    made = explored(folder / "frame", [FIGS], students=())
    page = folder / "frame.html"
    write_explorer(made, Selected(), page)
    return page.stat().st_size - len(json.dumps(records_in(page), separators=(",", ":"), ensure_ascii=False).encode())


def test_the_page_without_records_is_as_small_as_is_reckoned_with(tmp_path: Path):
    assert frame(tmp_path) < explore.OF_PAGE


def test_no_text_leaves_its_element(tmp_path: Path):
    page = tmp_path / "page.html"
    write_explorer(explored(tmp_path), Selected(), page)
    text = page.read_text()
    assert [record["text"] for record in records_in(page)] == [marked.text for marked in RECORDS]
    assert text.lower().count("</script") == 2 and text.lower().count("</style") == 1
    for marked in HOSTILE:
        assert marked.question not in text


def test_hostile_names_are_text_too(tmp_path: Path):
    attention = store_of(tmp_path, RECORDS[:1], model="<img src=x onerror=alert(1)>")
    page = tmp_path / "page.html"
    write_explorer(Explored(chosen=Chosen(attention=attention, keys=tuple(attention))), Selected(), page)
    assert "<img" not in page.read_text()
    assert "&lt;img src=x" in page.read_text()


def test_a_students_file_that_does_not_fit_the_record_is_damage(tmp_path: Path):
    made = explored(tmp_path)
    students = {0: {record_key(FIGS): made.runs[made.name][0][record_key(PENS)]}}
    with pytest.raises(DamagedCacheError, match=r"record [0-9a-f]{64}: \(6, 7\).*student_attention\.parquet"):
        write_explorer(Explored(chosen=made.chosen, runs={made.name: students}), Selected(), tmp_path / "page.html")


@pytest.fixture
def run(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """A run of ten records and two seeds; the student of seed 1 was trained before students were looked at."""
    monkeypatch.setitem(experiment.scripted.write_attention.__globals__, "_block", plausible_block)
    experiment.run()
    chosen = choose("run.yaml")
    seen = [chosen.attention.marked(key) for key in chosen.keys[3:5]]
    write_student_attention(Path("runs/small/student/seed-0"), student_looks_of(seen, 0, learned=False))
    return experiment


def test_a_run_adds_where_records_come_from_and_where_its_students_looked(run: Experiment):
    result = run("explore", "run.yaml")
    assert result.exit_code == 0, result.output
    assert result.stdout == "runs/small/explore.html\n"
    assert re.fullmatch(r"10 of 10 records, 0\.\d MB\n", result.stderr)
    records = records_in(Path("runs/small/explore.html"))
    assert [record["id"] for record in records][:2] == ["q-4", "q-5"], "the student was asked about these"
    first = records[0]
    assert (first["dataset"], first["answer"], first["phase"]) == ("svamp", "6", "imported")
    assert students_in(Path("runs/small/explore.html")) == [{"small": ["0"]}] * 2 + [{}] * 8
    assert first["students"]["small"]["0"]["after"]["weights"] is None


def test_a_space_is_explored_into_the_working_directory(run: Experiment):
    (space,) = Path("store/attention").iterdir()
    result = run("explore", "attention/", "--store", "store", "--search", "has 3 figs")
    assert result.stdout == f"{space.name}.html\n"
    (record,) = records_in(Path(result.stdout.strip()))
    assert "students" not in record and "phase" not in record
    result = run("explore", "runs/small", "--out", "new/page.html", "--records", "3", "--seed", "5")
    assert len(records_in(Path("new/page.html"))) == 3
    assert run("explore", "run.yaml", "--search", "zebra").exit_code == 2


def test_a_students_file_that_is_damaged_is_named(run: Experiment):
    Path("runs/small/student/seed-1/student_attention.parquet").write_bytes(b"PAR1")
    with pytest.raises(DamagedCacheError, match=r"seed-1/student_attention\.parquet: does not decode"):
        look_at(choose("run.yaml"))


MATRIX = """\
matrix:
  - {objective.name: [dss, mmi]}
  - {objective.name: [molsaki], objective.alignment: [mixture, uniform]}
  - {attention.steps: [lines]}
"""
MEANT = ["dss", "molsaki, mixture", "molsaki, uniform"]


@pytest.fixture
def study(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """A matrix of four points and two seeds, and one of other steps; no student of `mmi` was looked at."""
    monkeypatch.setitem(experiment.scripted.write_attention.__globals__, "_block", plausible_block)
    with Path("run.yaml").open("a") as file:
        file.write(MATRIX)
    experiment.run()
    chosen = choose("run.yaml")
    seen = [chosen.attention.marked(key) for key in chosen.keys[3:5]]
    for point in Path("runs/small").glob("*/student"):
        for seed in (0, 1) if "mmi" not in str(point) else ():
            looks = student_looks_of(seen, seed, learned="dss" not in str(point))
            write_student_attention(point / f"seed-{seed}", looks)
    return experiment


def test_a_matrix_has_the_first_student_of_each_point_that_shares_the_space(study: Experiment):
    result = study("explore", "run.yaml")
    assert result.exit_code == 0, result.output
    page = Path("runs/small/explore.html")
    assert result.stdout == f"{page}\n"
    notes = result.stderr.splitlines()
    assert "2 spaces; this is that of objective=dss and 3 more." in notes[0] and "steps=lines" in notes[0]
    assert re.fullmatch(r"10 of 10 records, 3 of 6 students, 0\.\d MB", notes[1])
    assert notes[2] == "the first student of each point is in it; --students asks for more"
    assert students_in(page) == [{point: ["0"] for point in MEANT}] * 2 + [{}] * 8
    text = page.read_text()
    assert '<h1 id="name">small</h1>' in text and "3 of 6 students" in text
    assert "2 spaces; this is that of objective=dss" in text
    assert study("explore", "runs/small", "--out", "again.html").exit_code == 0
    assert Path("again.html").read_text() == text


@pytest.mark.parametrize(("number", "seeds"), [(0, []), (1, ["0"]), (2, ["0", "1"]), (9, ["0", "1"])])
def test_so_many_students_of_each_point_as_asked_for(study: Experiment, number: int, seeds: list[str]):
    result = study("explore", "run.yaml", "--students", str(number), "--out", "page.html")
    assert result.exit_code == 0, result.output
    assert f", {3 * len(seeds)} of 6 students, " in result.stderr and "--students" not in result.stderr
    found = students_in(Path("page.html"))
    assert sorted(map(len, found)) == [0] * 8 + [3 * bool(seeds)] * 2
    assert all(each == dict.fromkeys(MEANT, seeds) for each in found if each)


def test_the_folder_of_a_point_is_an_ordinary_run(study: Experiment):
    point = Path("runs/small/objective=molsaki,alignment=uniform")
    result = study("explore", str(point))
    assert re.fullmatch(r"10 of 10 records, 0\.\d MB\n", result.stderr)
    assert students_in(point / "explore.html")[0] == {point.name: ["0", "1"]}
    other = study("explore", "runs/small/attention.steps=lines", "--out", "lines.html")
    assert other.exit_code == 0, other.output
    assert not set(keys_in(Path("lines.html"))) & set(keys_in(point / "explore.html"))


def keys_in(page: Path) -> list[str]:
    return [record["key"] for record in records_in(page)]


def test_a_page_of_a_hundred_students_is_no_larger_than_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = explored(tmp_path, [mark(f"Ann has {number} figs. How many?", "She has 2 more.") for number in range(40)])
    looks = {look_of.key: {"after": look_of} for look_of in student_looks_of([*map(made.chosen.attention.marked,
             made.chosen.keys)], 0) if look_of.when == "after"}  # fmt: skip
    many = {f"beta={point}": dict.fromkeys(range(10), looks) for point in range(10)}
    monkeypatch.setattr(explore, "LARGEST", explore.OF_PAGE + 200_000)
    page = tmp_path / "page.html"
    written = write_explorer(Explored(chosen=made.chosen, runs=many), Selected(), page)
    assert 1 < written.shown < written.wanted == 40
    assert (written.students, written.trained) == (100, 100)
    assert written.bytes <= explore.LARGEST


def test_records_that_most_students_were_asked_about_come_first(tmp_path: Path):
    made = explored(tmp_path)
    (first, second), looks = made.chosen.keys[:2], made.runs[made.name][0]
    points = {"a": {0: {second: looks[second]}}, "b": {0: {first: looks[first], second: looks[second]}}}
    turned = Explored(chosen=made.chosen, runs=points)
    assert selected_keys(turned, Selected()) == [second, first, *made.chosen.keys[2:]]


def test_exploring_loads_no_model_library():
    from tests.test_imports import loaded_after

    assert (
        loaded_after("import pipeline.views.explore, pipeline.views.choose, cache.reader") & {"torch", "transformers"}
        == set()
    )
