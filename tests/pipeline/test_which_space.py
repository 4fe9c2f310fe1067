"""What a command of looking is about: a configuration, a run's folder, a space by path or name, a tar file."""

import shutil
from pathlib import Path

import pytest

from cache.keys import record_key
from cache.sharing import export_space
from cache.spaces import Space
from cache.writer import AttentionWriter
from data.errors import ConfigError, MismatchError, MissingRecordsError
from data.marking import mark
from pipeline.which_space import Chosen, choose
from tests.pipeline.conftest import Experiment
from tests.pipeline.test_cache_commands import plausible_block

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
    assert (chosen.folder, chosen.missing) == (folder, 0)


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


def test_a_matrix_whose_points_share_their_attention_is_one(explained: Experiment) -> None:
    text = (explained.folder / "run.yaml").read_text()
    (explained.folder / "study.yaml").write_text(text + "matrix: {objective.beta: [1, 3]}\n")
    chosen = choose("study.yaml")
    assert (len(chosen.keys), chosen.folder) == (10, None)
    (explained.folder / "study.yaml").write_text(text + "matrix: {attention.max_length: [512, 1024]}\n")
    with pytest.raises(ConfigError, match=r"its points differ in attention.*runs/small/attention\.max_length=1024"):
        choose("study.yaml")


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
