"""`molsaki cache verify` and `molsaki cache gc`, and what training says to a damaged or incomplete store."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cache import open_attention
from cache.keys import record_key
from cache.reader import AttentionStore
from cache.spaces import Space
from cache.writer import AttentionBlock, AttentionWriter
from data.records import Marked
from pipeline.cli.main import molsaki
from tests.fakes import tiny_model_folder
from tests.pipeline.conftest import Experiment
from tests.stages.attention.test_against_teacher import extract

SPACE = ("attention/", "--store", "store")


def plausible_block(marked: Marked) -> AttentionBlock:
    """A record that may come from a teacher: no step looks at a later word."""
    ends, starts = ([end for _, end in marked.step_spans], [start for start, _ in marked.critical_spans])
    attention = np.array([[float(start < end) for start in starts] for end in ends], dtype=np.float32)
    return AttentionBlock(
        key=record_key(marked),
        marked=marked,
        attention=np.stack([attention, attention]),
        step_tokens=np.full(len(ends), len(starts)),
    )


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gc looks for what exports have left in the place for temporary files; that of the system is not ours alone."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


@pytest.fixture
def explained(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """An experiment whose first stage is done: 10 records in 3 parts."""
    monkeypatch.setitem(experiment.scripted.write_attention.__globals__, "_block", plausible_block)
    experiment.run("--only", "rationales")
    experiment.run("--only", "attention", "--set", "attention.piece=4")
    return experiment


def attention(experiment: Experiment) -> Space:
    (folder,) = (experiment.folder / "store" / "attention").iterdir()
    return Space.open(folder)


def shard(experiment: Experiment, part: int = 0) -> Path:
    space = attention(experiment)
    return space.part_path(space.commits()[part]) / "attention" / "c" / "0" / "0"


def test_a_sound_space_ends_with_zero(explained: Experiment) -> None:
    result = explained("cache", "verify", *SPACE)
    assert result.exit_code == 0, result.output
    assert "3 commits, 10 records" in result.stdout
    assert "0 findings" in result.stdout


def test_damage_is_a_table_one_clear_line_and_65(explained: Experiment) -> None:
    path = shard(explained)
    path.unlink()
    result = explained("cache", "verify", *SPACE)
    assert result.exit_code == 65
    assert "attention/c/0/0" in result.stdout
    assert "missing, " in result.stdout
    (error,) = (line for line in result.stderr.splitlines() if line.startswith("error"))
    assert "1 findings; `molsaki cache verify attention/ --store store --repair`" in error


def test_json_has_all_findings(explained: Experiment) -> None:
    path = shard(explained)
    path.write_bytes(bytes(path.stat().st_size))
    result = explained("cache", "verify", *SPACE, "--json", "--deep")
    found = json.loads(result.stdout)
    assert result.exit_code == 65
    assert found["deep"] is True
    assert (found["records"], found["commits"], found["repairs"], found["against_teacher"]) == (10, 3, [], None)
    hashed, decoded = found["findings"]
    assert hashed["file"].endswith("attention/c/0/0")
    assert (hashed["records"], hashed["keys"]) == (4, [])
    assert decoded["what"].startswith("does not decode")
    assert len(decoded["keys"]) == 4


def test_repair_ends_with_zero_and_the_next_run_computes_just_the_rest(explained: Experiment) -> None:
    shard(explained).unlink()
    result = explained("cache", "verify", *SPACE, "--repair")
    assert result.exit_code == 0, result.output
    assert "commits/00000000.json: 0 records kept, 4 will be computed by the next run" in result.stdout
    assert explained("cache", "verify", *SPACE).exit_code == 0
    explained.scripted.attention.clear()
    explained.run("--only", "attention")
    assert len(explained.scripted.attention) == 4
    result = explained("cache", "verify", *SPACE, "--repair")
    assert (result.exit_code, "records kept" in result.stdout) == (0, False)


def test_rationales_are_repaired_and_made_again(explained: Experiment) -> None:
    (folder,) = (explained.folder / "store" / "rationales").iterdir()
    space = Space.open(folder)
    (space.part_path(space.commits()[0]) / "attempts.parquet").write_bytes(b"gone")
    assert explained("cache", "verify", "rationales/", "--store", "store").exit_code == 65
    assert explained("status", "run.yaml").exit_code == 65
    assert explained("cache", "verify", "rationales/", "--store", "store", "--repair").exit_code == 0
    explained.run("--only", "rationales")
    assert explained("cache", "verify", "rationales/", "--store", "store").exit_code == 0
    assert json.loads(explained("status", "run.yaml", "--json").stdout)[0]["done"] == 10


def test_a_damaged_spec_is_named_though_no_other_command_opens_it(explained: Experiment) -> None:
    (attention(explained).path / "spec.json").write_text("{}\n")
    assert explained("cache", "show", *SPACE).exit_code == 65
    result = explained("cache", "verify", *SPACE)
    assert result.exit_code == 65
    assert "spec.json" in result.stdout
    assert explained("cache", "verify", *SPACE, "--repair").exit_code == 0
    explained.run("--only", "attention")
    assert explained("cache", "verify", *SPACE).exit_code == 0
    assert json.loads(explained("status", "run.yaml", "--json").stdout)[1]["done"] == 10


def test_what_repair_cannot_mend_says_what_does(explained: Experiment) -> None:
    (attention(explained).path / "spec.json").unlink()
    result = explained("cache", "verify", *SPACE, "--repair")
    assert result.exit_code == 65
    assert "the next run with the configuration" in " ".join(result.stdout.split())
    assert "1 findings that --repair cannot mend; each says what does" in result.stderr
    explained.run("--only", "attention")
    assert explained("cache", "verify", *SPACE).exit_code == 0


def test_a_space_that_is_not_there_is_wrong_usage(explained: Experiment) -> None:
    for command in ("verify", "gc"):
        assert explained("cache", command, "nothing", "--store", "store").exit_code == 2


@pytest.mark.parametrize("options", [("--against-teacher", "3"), ("--teacher", "./teacher")])
def test_the_teacher_and_how_many_records_belong_together(explained: Experiment, options: tuple[str, ...]) -> None:
    result = explained("cache", "verify", *SPACE, *options)
    assert result.exit_code == 2
    assert "--teacher" in result.stderr


def verify_against(space: Space, teacher: Path, *options: str) -> Result:
    arguments = ("cache", "verify", str(space.path), "--against-teacher", "3", "--teacher", str(teacher), *options)
    return CliRunner().invoke(molsaki, [*arguments, "--device", "cpu", "--quiet"])


def test_against_its_teacher_a_space_says_how_far_it_is(tmp_path: Path) -> None:
    teacher = tiny_model_folder(tmp_path / "teacher", "qwen2")
    space = extract(teacher, tmp_path)
    result = verify_against(space, teacher)
    assert result.exit_code == 0, result.output
    assert "3 records through the teacher again: largest difference" in result.stdout
    found = json.loads(verify_against(space, teacher, "--json").stdout)["against_teacher"]
    assert 0 < found["mean"] <= found["largest"] < found["expected"]
    other = verify_against(space, tiny_model_folder(tmp_path / "other", "qwen2", seed=1))
    assert other.exit_code == 2
    assert "ours: " in other.stderr
    assert "theirs: " in other.stderr


def test_numbers_that_are_not_the_teachers_end_with_65(tmp_path: Path) -> None:
    teacher = tiny_model_folder(tmp_path / "teacher", "qwen2")
    store = AttentionStore(extract(teacher, tmp_path))
    other = Space.open_or_create(tmp_path / "other", "attention", "teacher", store.space.spec)
    AttentionWriter(other).append(
        [
            AttentionBlock(
                key=key, marked=store.marked(key), attention=store[key] / 2, step_tokens=store.step_tokens(key)
            )
            for key in store
        ]
    )
    result = verify_against(other, teacher)
    assert result.exit_code == 65
    assert "stored attention is 50.0" in result.stderr


def test_training_refuses_a_damaged_store(explained: Experiment) -> None:
    os.truncate(shard(explained), 10)
    result = explained("train", "run.yaml")
    assert result.exit_code == 65
    assert "10 bytes" in result.stderr
    assert "molsaki cache verify" in result.stderr
    assert explained.scripted.trained == []


def test_training_refuses_an_incomplete_store_and_says_what_is_missing(explained: Experiment) -> None:
    shard(explained, 1).unlink()
    assert explained("cache", "verify", *SPACE, "--repair").exit_code == 0
    result = explained("train", "run.yaml")
    assert result.exit_code == 1
    assert "teacher attention of 4 records is missing; make it with: molsaki attention CONFIG" in result.stderr
    assert explained.scripted.trained == []
    assert explained("attention", "run.yaml").exit_code == 0
    assert explained("train", "run.yaml").exit_code == 0
    assert explained.scripted.trained == [0, 1]


def test_where_nothing_is_stored_what_differs_from_the_nearest_space_is_said_before_computing(
    explained: Experiment,
) -> None:
    lines = ("--set", "attention.steps=lines")
    name = f"attention/{attention(explained).path.name}"
    said = f'nothing stored for this; nearest is {name} (10 records): steps ours "lines", theirs "periods"'
    for command in (("status", "run.yaml"), ("run", "run.yaml", "--dry-run"), ("attention", "run.yaml", "--dry-run")):
        plans = json.loads(explained(*command, *lines, "--json").stdout)
        assert [plan["detail"] for plan in plans if plan["name"] == "attention"] == [said]
        assert [plan["detail"] for plan in plans if plan["name"] == "rationales"] == [""] * (len(plans) > 1)
    stage = explained("attention", "run.yaml", *lines)
    assert said in stage.stderr
    assert said not in explained("attention", "run.yaml", *lines).stderr
    assert json.loads(explained("status", "run.yaml", *lines, "--json").stdout)[1]["detail"] == ""


def test_a_run_that_meets_another_spec_in_its_space_names_the_field(explained: Experiment) -> None:
    path = attention(explained).path / "spec.json"
    path.write_text(path.read_text().replace('"periods"', '"lines"'))
    for command in ("status", "run", "attention", "train"):
        result = explained(command, "run.yaml")
        assert result.exit_code == 2
        assert '  steps\n    ours:   "periods"\n    theirs: "lines"' in result.stderr
    assert explained.scripted.trained == []


DAMAGES: dict[str, Callable[[Path], object]] = {
    "spec.json is none": lambda folder: (folder / "spec.json").write_text("{"),
    "spec.json is changed": lambda folder: (folder / "spec.json").write_text(
        (folder / "spec.json").read_text().replace('"schema": 1', '"schema": 3')
    ),
    "spec.json is gone": lambda folder: (folder / "spec.json").unlink(),
    "a commit is none": lambda folder: (folder / "commits" / "00000000.json").write_text("{}"),
    "spec.json and commits are gone": lambda folder: [
        (folder / "spec.json").unlink(),
        shutil.rmtree(folder / "commits"),
    ],
    "commits are gone": lambda folder: shutil.rmtree(folder / "commits"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_space_is_listed_with_reason_and_command_and_the_others_as_usual(
    explained: Experiment, damage: str
) -> None:
    (folder,) = (explained.folder / "store" / "rationales").iterdir()
    DAMAGES[damage](folder)
    name, sound = f"rationales/{folder.name}", attention(explained).path
    result = explained("cache", "ls", "--store", "store")
    assert result.exit_code == 65
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [name, "damaged"] in lines
    assert [f"attention/{sound.name}", "10"] in [line[:2] for line in lines]
    (error,) = result.stderr.splitlines()
    assert error.startswith((f"error: {name}: damaged: spec.json: ", f"error: {name}: damaged: commits"))
    assert (
        f"`molsaki cache verify {name} --store store` lists all damage and, with --repair, keeps what is sound" in error
    )
    assert explained("cache", "verify", name, "--store", "store").exit_code == 65
    first, second = json.loads(explained("cache", "ls", "--store", "store", "--json").stdout)
    assert (first["kind"], first["damaged"], bool(first["problem"])) == ("rationales", True, True)
    assert (second["kind"], second["records"]) == ("attention", 10)
    assert len(open_attention(sound).to_pandas()) == 10
    assert explained("cache", "export", str(sound), "out", "--quiet").exit_code == 0
    assert explained("cache", "export", "attention/", "out.tar", "--store", "store", "--quiet").exit_code == 0


def test_a_space_that_somebody_has_just_begun_to_make_is_none_yet(explained: Experiment) -> None:
    begun = explained.folder / "store" / "attention" / "begun-0123456789abcdef"
    for name in ("parts", "commits"):
        (begun / name).mkdir(parents=True)
    for _ in range(2):
        for command in ("ls", "gc"):
            result = explained("cache", command, "--store", "store")
            assert (result.exit_code, "begun" in result.stdout) == (0, False), result.output
        (begun / "spec.json").touch()  # claimed, where there are no hard links


def test_a_space_of_a_newer_molsaki_is_listed_and_no_damage(explained: Experiment) -> None:
    folder = explained.folder / "store" / "attention" / "newer-0123456789abcdef"
    folder.mkdir()
    (folder / "spec.json").write_text('{"kind": "new", "slug": 1, "fingerprint": "x", "spec": {"schema": 2}}')
    result = explained("cache", "ls", "--store", "store")
    assert result.exit_code == 2
    assert "attention/newer-0123456789abcdef" in result.stdout
    assert "of another version" in result.stdout
    assert result.stdout.count("/") == 3
    assert "pip install --upgrade molsaki" in result.stderr
    collected = explained("cache", "gc", "--store", "store")
    assert collected.exit_code == 2
    assert "pip install --upgrade molsaki" in collected.stderr
    assert explained("cache", "verify", "attention/newer", "--store", "store", "--repair").exit_code == 2
    assert (folder / "spec.json").exists()


def leave_behind(experiment: Experiment, days: float) -> Path:
    part = attention(experiment).new_part()
    (part / "half").write_bytes(b"12345")
    at = time.time() - days * 86400
    for path in (part / "half", part):
        os.utime(path, (at, at))
    return part


def test_gc_says_and_frees_what_is_left_over(explained: Experiment) -> None:
    part = leave_behind(explained, days=2)
    dry = explained("cache", "gc", "--store", "store", "--dry-run")
    assert (dry.exit_code, part.exists()) == (0, True)
    assert "1 leftovers, 5 B would be freed" in dry.stdout
    found = json.loads(explained("cache", "gc", "--store", "store", "--dry-run", "--json").stdout)
    assert (found["removed"], found["bytes"], found["leftovers"][0]["what"]) == (False, 5, "part without commit")
    result = explained("cache", "gc", "--store", "store")
    assert (result.exit_code, part.exists()) == (0, False)
    assert "5 B freed" in result.stdout
    assert explained("cache", "verify", *SPACE, "--deep").exit_code == 0


def test_gc_keeps_what_is_young(explained: Experiment) -> None:
    part = leave_behind(explained, days=0.5)
    assert explained("cache", "gc", "attention/", "--store", "store").exit_code == 0
    assert part.exists()
    assert explained("cache", "gc", "attention/", "--store", "store", "--older-than", "6h").exit_code == 0
    assert not part.exists()


def test_gc_removes_what_killed_trainings_left_of_their_memory_maps(explained: Experiment) -> None:
    folder = explained.folder / "store" / "targets"
    folder.mkdir()
    for name in ("a.targets", ".old.tmp", ".young.tmp"):
        (folder / name).write_bytes(b"12345")
    for name in ("a.targets", ".old.tmp"):
        os.utime(folder / name, (0, 0))
    assert explained("cache", "gc", "attention/", "--store", "store").exit_code == 0
    assert len(list(folder.iterdir())) == 3
    assert "5 B freed" in explained("cache", "gc", "--store", "store").stdout
    assert {path.name for path in folder.iterdir()} == {"a.targets", ".young.tmp"}


def test_gc_leaves_a_damaged_space_alone_and_does_the_others(explained: Experiment) -> None:
    part = leave_behind(explained, days=2)
    (folder,) = (explained.folder / "store" / "rationales").iterdir()
    (folder / "commits" / "00000000.json").write_text("{}\n")
    result = explained("cache", "gc", "--store", "store")
    assert result.exit_code == 65
    assert "molsaki cache verify" in result.stderr
    assert not part.exists()


@pytest.mark.parametrize("age", ["1", "day", "-1d", ""])
def test_an_age_that_is_none_is_wrong_usage(experiment: Experiment, age: str) -> None:
    result = experiment("cache", "gc", "--store", "store", "--older-than", age)
    assert result.exit_code == 2
    assert "such as 12h" in result.stderr
