"""What a command of looking is about: a configuration, a run's folder, a space by path or name, a tar file."""

import shutil
from pathlib import Path

import pytest

from cache.exchange.exporting import export_space
from cache.keys import record_key
from cache.spaces import Space
from cache.writer import AttentionWriter
from data.errors import ConfigError, MismatchError, MissingRecordsError
from data.marking import mark
from pipeline.views.choose import Chosen, choose
from tests.pipeline.conftest import Experiment
from tests.pipeline.store.test_commands import plausible_block

STRANGE = mark("Ann has 3 figs. How many?", "She has 3. The answer is 3.")


@pytest.fixture
def explained(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """An experiment whose attention is stored: 10 records of the run, and one of somebody else's in the same space."""
    monkeypatch.setitem(experiment.scripted.write_attention.__globals__, "_block", plausible_block)
    experiment.run("--only", "rationales")
    experiment.run("--only", "attention")
    AttentionWriter(Space.open(space_of(experiment))).append([plausible_block(STRANGE)])
    return experiment


def space_of(experiment: Experiment) -> Path:
    (folder,) = (experiment.folder / "store" / "attention").iterdir()
    return folder


def assert_is_the_run(chosen: Chosen, folder: Path) -> None:
    assert len(chosen.keys) == 10
    assert record_key(STRANGE) not in chosen.keys
    assert set(chosen.keys) < set(chosen.attention)
    assert chosen.config is not None and chosen.config.name == "small"
    assert (chosen.folder, chosen.missing, chosen.runs) == (folder, 0, {"small": folder})
    assert (chosen.name, chosen.matrix, chosen.notes) == ("small", None, ())
    assert len(chosen.rationales) == 10


def test_a_configuration_means_the_records_of_its_run(explained: Experiment) -> None:
    assert_is_the_run(choose("run.yaml"), Path("runs/small"))
    assert_is_the_run(choose("run.yaml", runs=Path("elsewhere")), Path("elsewhere/small"))
    assert len(choose("run.yaml", overrides=["data.train.0.limit=4"]).keys) == 4


def test_a_runs_folder_means_that_run(explained: Experiment) -> None:
    assert_is_the_run(choose("runs/small"), Path("runs/small"))
    assert_is_the_run(choose("runs/small/config.yaml"), Path("runs/small"))
    shutil.copytree("runs/small", "kept elsewhere")
    assert_is_the_run(choose("kept elsewhere"), Path("kept elsewhere"))


def test_records_that_are_not_stored_are_counted(explained: Experiment) -> None:
    explained.run("--only", "rationales", "--set", "data.train.0.limit=13")
    chosen = choose("run.yaml", overrides=["data.train.0.limit=13"])
    assert (len(chosen.keys), chosen.missing) == (10, 3)


def test_a_space_means_all_that_is_in_it(explained: Experiment, tmp_path: Path) -> None:
    space = Space.open(space_of(explained))
    export_space(space, "space.tar")
    found = [
        choose(str(space.path)),
        choose("attention/tea", store=Path("store")),
        choose("teacher", store=Path("store")),  # there is one of rationales as well, of another name
        choose("space.tar"),
    ]
    for chosen in found:
        assert set(chosen.keys) == set(choose("run.yaml").keys) | {record_key(STRANGE)}
        assert (chosen.config, chosen.folder) == (None, None)


def test_names_mean_spaces_of_attention_alone(explained: Experiment) -> None:
    (folder,) = (explained.folder / "store" / "rationales").iterdir()
    shutil.copytree(folder, folder.with_name(f"teacher-{folder.name}"))
    assert choose("teacher", store=Path("store")).attention.space.kind == "attention"
    with pytest.raises(ConfigError, match="none in store begins so; see: molsaki cache ls"):
        choose("rationales/", store=Path("store"))


def test_what_is_nothing_is_refused(explained: Experiment) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        choose("missing.yaml")
    with pytest.raises(ConfigError, match=r"--set name=x: goes with a configuration, and teacher is a space"):
        choose("teacher", store=Path("store"), overrides=["name=x"])


def test_a_configuration_without_attention_says_what_computes_it(experiment: Experiment) -> None:
    experiment.run("--only", "rationales")
    with pytest.raises(MissingRecordsError, match=r"no attention is stored for it.*`molsaki attention run\.yaml`"):
        choose("run.yaml")


def test_a_space_without_records_says_what_computes_them(tmp_path: Path) -> None:
    space = Space.open_or_create(tmp_path, "attention", "empty", {"schema": 1})
    with pytest.raises(MissingRecordsError, match="no attention yet; `molsaki attention CONFIG`"):
        choose(str(space.path))


def matrix_of(explained: Experiment, matrix: str) -> str:
    """A file that asks for the run with a matrix, under the name `study`."""
    text = (explained.folder / "run.yaml").read_text().replace("name: small", "name: study")
    (explained.folder / "study.yaml").write_text(f"{text}matrix: {matrix}\n")
    return "study.yaml"


def test_a_matrix_whose_points_share_their_attention_means_all_of_them(explained: Experiment) -> None:
    study = matrix_of(explained, "[{objective.name: [dss]}, {objective.name: [molsaki], objective.beta: [1, 3]}]")
    chosen = choose(study)
    assert (len(chosen.keys), chosen.missing, chosen.notes) == (10, 0, ())
    assert (chosen.name, chosen.matrix, chosen.folder) == ("study", "study", Path("runs/study"))
    assert chosen.config is not None and chosen.config.objective.name == "molsaki"
    assert chosen.runs == {
        "dss": Path("runs/study/objective=dss"),
        "molsaki, beta=1": Path("runs/study/objective=molsaki,beta=1"),
        "molsaki, beta=3": Path("runs/study/objective=molsaki,beta=3"),
    }
    explained("run", study, "--only", "rationales")
    assert choose("runs/study").runs == choose("runs/study/config.yaml").runs == chosen.runs
    shutil.copytree("runs/study", "kept elsewhere")
    assert choose("kept elsewhere").runs["dss"] == Path("kept elsewhere/objective=dss")
    point = choose("runs/study/objective=dss")
    assert (point.name, point.matrix, point.runs) == ("objective=dss", None, {"objective=dss": point.folder})


def test_points_with_other_data_in_one_space_have_their_records_together(explained: Experiment) -> None:
    chosen = choose(matrix_of(explained, "{data.train.0.limit: [4, 12]}"))
    assert (len(chosen.keys), chosen.missing) == (10, 0), "of the last two there is no rationale"
    assert len(chosen.runs) == 2
    assert len(chosen.rationales) == len(set(chosen.rationales)) == 10


def test_points_with_several_spaces_are_never_mixed_and_the_user_is_told(explained: Experiment) -> None:
    study = matrix_of(explained, "{attention.steps: [lines, periods, sentences], objective.beta: [1, 3]}")
    assert explained("run", study, "--only", "rationales").exit_code == 0
    chosen = choose(study)
    assert list(chosen.runs) == ["attention.steps=periods, beta=1", "attention.steps=periods, beta=3"]
    assert chosen.attention.space.path.name == space_of(explained).name, "of lines nothing is stored"
    (note,) = chosen.notes
    assert "3 spaces; this is that of attention.steps=periods,beta=1 and 1 more." in note
    folder = "runs/study/attention.steps=lines,beta=1"
    assert f"name the folder of a point, as {folder} or runs/study/attention.steps=sentences,beta=1" in note
    assert explained("attention", study).exit_code == 0
    assert choose(study).attention.space.spec["steps"] == choose(folder).attention.space.spec["steps"] == "lines"
    assert not choose(folder).notes


def test_points_without_any_critical_word_do_not_stand_in_the_way(explained: Experiment) -> None:
    zebra = "{attention.critical: [regex], attention.pattern: ['zebra']}"
    chosen = choose(matrix_of(explained, f"[{zebra}, {{attention.critical: [numbers]}}]"))
    assert (list(chosen.runs), len(chosen.keys), len(chosen.notes)) == (["attention.critical=numbers"], 10, 1)
    with pytest.raises(ConfigError, match="'zebra' finds no critical word"):
        choose(matrix_of(explained, zebra))


def test_points_that_mix_layers_differently_are_told_of(explained: Experiment) -> None:
    chosen = choose(matrix_of(explained, "[{objective.name: [dss]}, {objective.tau_teacher: [0.5, 0.2]}]"))
    assert chosen.config is not None and chosen.config.objective.tau_teacher == 0.5
    (note,) = chosen.notes
    assert note == (
        "study: objective.tau_teacher differs between its points; layers of the teacher are mixed as in "
        "tau_teacher=0.5, with 0.5"
    )


def test_a_matrix_without_attention_says_what_computes_it(explained: Experiment) -> None:
    with pytest.raises(MissingRecordsError, match=r"no attention is stored for it.*`molsaki attention study\.yaml`"):
        choose(matrix_of(explained, "{attention.steps: [lines, sentences]}"))


def test_a_key_may_be_the_beginning_of_one(explained: Experiment) -> None:
    chosen = choose("run.yaml")
    for key in chosen.keys:
        assert chosen.key(key) == key
        assert chosen.key(key[:20].upper()) == key
    with pytest.raises(ConfigError, match=r"10 keys begin so \([0-9a-f]{16}, .*, …\); write more of it"):
        chosen.key("")
    with pytest.raises(ConfigError, match="record xyz: none of 10 keys begins so"):
        chosen.key("xyz")
    with pytest.raises(ConfigError, match="none of 10 keys begins so"):
        chosen.key(record_key(STRANGE))


def test_a_space_copied_under_the_name_of_another_is_refused(explained: Experiment) -> None:
    space = space_of(explained)
    copied = space.with_name("other-0123456789abcdef")
    shutil.copytree(space, copied)
    with pytest.raises(MismatchError, match="named for another space"):
        choose(str(copied))
