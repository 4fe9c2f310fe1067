"""`molsaki cache export` and `molsaki cache import` as a user meets them."""

import json
import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import pipeline.store.commands
from cache.spaces import Space
from cache.writer import AttentionWriter
from pipeline.cli.main import molsaki
from tests.cache.exchange.test_hostile_archives import sound_block
from tests.cache.truth import make_block, make_space


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def space() -> Space:
    made = make_space(Path("ours"))
    AttentionWriter(made).append([sound_block(number) for number in range(3)])
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(molsaki, ["cache", *arguments])


def fails(code: int, *arguments: str) -> list[str]:
    """The lines on stderr of a command that has to end with this exit code."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return result.stderr.splitlines()


@pytest.mark.parametrize("target", ["out", "out.tar", "memory://cli/space", "memory://cli/space.tar"])
def test_a_space_goes_out_and_comes_in(space: Space, target: str) -> None:
    exported = run("export", "teacher", target, "--store", "ours", "--json", "--quiet")
    assert exported.exit_code == 0, exported.output
    assert json.loads(exported.stdout)["records"] == 3
    assert exported.stderr == ""
    imported = run("import", target, "--store", "theirs", "--json", "--quiet")
    assert imported.exit_code == 0, imported.output
    found = json.loads(imported.stdout)
    assert (found["records"], found["known"], found["fingerprint"]) == (3, 0, space.fingerprint)
    assert Path(found["path"]) == Path("theirs") / "attention" / space.path.name
    again = run("import", target, "--store", "theirs")
    assert again.exit_code == 0
    assert "0 in 0 parts" in again.stdout
    assert "there already" in again.stdout
    assert run("ls", "--store", "theirs").stdout.count("attention/teacher") == 1


def test_a_table_tells_a_person_what_was_exported(space: Space) -> None:
    result = run("export", "attention/teacher", "out", "--store", "ours")
    assert result.exit_code == 0
    assert "3 in 1 parts" in result.stdout
    assert "22 written now" in result.stdout


def test_chosen_records_go_out(space: Space) -> None:
    Path("keys.txt").write_text(make_block(1).key + "\n")
    result = run("export", "teacher", "out.tar", "--store", "ours", "--keys", "keys.txt", "--json")
    assert json.loads(result.stdout)["records"] == 1


def test_mistakes_are_wrong_usage(space: Space) -> None:
    Path("keys.txt").write_text("evil\n")
    (line,) = fails(2, "export", "teacher", "out", "--store", "ours", "--keys", "keys.txt")
    assert line.startswith("error: keys.txt: line 1: expected a key")
    (line,) = fails(2, "export", "nothing", "out", "--store", "ours")
    assert "molsaki cache ls" in line
    (line,) = fails(2, "import", "nowhere", "--store", "theirs")
    assert "no spec.json there" in line
    (line,) = fails(2, "import", "nowhere.tar", "--store", "theirs")
    assert "there is no such file" in line
    Path("keys.txt").write_text("f" * 64)
    (line,) = fails(1, "export", "teacher", "out", "--store", "ours", "--keys", "keys.txt")
    assert "1 of 1 records are not stored" in line


def test_another_space_in_the_way_is_a_mismatch_with_field_ours_and_theirs(space: Space) -> None:
    assert run("export", "teacher", "out", "--store", "ours").exit_code == 0
    Space.open_or_create(Path("others"), "attention", "teacher", {"schema": 1, "teacher": {"source": "another"}})
    lines = fails(2, "export", "teacher", "out", "--store", "others")
    assert lines == [
        "error: out: holds another space",
        "  teacher.source",
        '    ours:   "another"',
        '    theirs: "made up"',
    ]


def test_damage_ends_with_65(space: Space) -> None:
    assert run("export", "teacher", "out", "--store", "ours").exit_code == 0
    for folder in ("ours", "out"):
        (shard,) = Path(folder).rglob("attention/c/0/0")
        shard.write_bytes(shard.read_bytes()[:-1])
    (line,) = fails(65, "export", "teacher", "elsewhere", "--store", "ours", "--quiet")
    assert "attention/c/0/0: the content is not what was committed" in line
    (line,) = fails(65, "import", "out", "--store", "theirs", "--quiet")
    assert line.startswith("error: out: parts/")
    assert not Path("theirs").exists()


def test_a_signal_ends_both_with_75_at_a_safe_place(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(pipeline.store.commands.StoppingMeter):
        def start(self, task: str, total: int) -> None:
            super().start(task, total)
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(pipeline.store.commands, "StoppingMeter", Stopped)
        (line,) = fails(75, "export", "teacher", "out.tar", "--store", "ours", "--quiet")
        assert "stopped by SIGTERM after saving nothing, for a tar file is written as a whole" in line
        assert not Path("out.tar").exists()
        (line,) = fails(75, "import", str(space.path), "--store", "theirs", "--quiet")
        assert "after saving nothing, the store is as it was; run the same command to go on" in line
        assert not Path("theirs").exists()
    assert run("import", str(space.path), "--store", "theirs", "--quiet").exit_code == 0


@pytest.mark.parametrize("command", ["export", "import"])
def test_help_shows_an_example_and_the_addresses(command: str) -> None:
    text = run(command, "--help").stdout
    assert f"molsaki cache {command}" in text.split("Examples:")[1]
    assert "s3://" in text


def test_the_store_is_the_users_own_unless_another_is_named(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.cwd() / "user"))
    assert run("import", str(space.path), "--quiet").exit_code == 0
    assert (Path("user") / "molsaki" / "attention" / space.path.name).is_dir()
