"""`more_rationales`: several sources whose records a run learns from together, each asked in a process of its own."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli.main import molsaki
from pipeline.config.load import load_config
from pipeline.run.processes import ForwardingStop
from pipeline.run.provenance import executions, read_provenance
from tests.forks import Molsaki
from tests.pipeline.conftest import Tiny

FILE = {"rationales": {"engine": "file", "path": "more.jsonl"}}
MENTOR = {
    "teacher": {"model": "./student", "dtype": "float32", "device": "cpu"},
    "rationales": {
        "engine": "transformers", "as_student": True, "shots": 0, "second_phase": False, "max_tokens": 4,
        "temperature": 0.7, "samples": 2,
    },
}  # fmt: skip
SOURCES = ("runs/tiny", "runs/tiny/rationales-2", "runs/tiny/rationales-3")


def sources(*more: object) -> tuple[str, str]:
    return "--set", f"more_rationales={json.dumps(more)}"


@pytest.fixture
def two(tiny: Tiny) -> Tiny:
    """The experiment with a second file of rationales, of which those of odd questions say the same as the first."""
    texts = {n: f"{n} and 2 make {n + 2}." if n % 2 else f"Add 2 to {n}, that is {n + 2}." for n in range(1, 9)}
    tiny.write_rationales("more.jsonl", texts)
    (tiny.folder / "tiny.yaml").write_text(
        (tiny.folder / "tiny.yaml").read_text() + yaml.safe_dump({"more_rationales": [FILE]})
    )
    return tiny


def test_records_of_all_sources_are_learned_from_and_the_same_text_counts_once(two: Tiny) -> None:
    ran = two.run()
    assert "rationales: 8 of 8 questions there, done" in ran.stderr and "; rationales-2" in ran.stderr
    assert "soft-labels: 12 of 12 records there, done; 4 dropped (same record twice 4)" in ran.stderr
    trained = two.trained()
    assert trained["records"] == 12
    spaces = {path.name.rpartition("-")[2] for path in Path("store/rationales").iterdir()}
    assert len(trained["sources"]) == 2 and {each[:16] for each in trained["sources"]} == spaces
    card = Path("runs/tiny/student/seed-0/README.md").read_text()
    assert all(f"`{each}`" in card for each in (trained["rationales"], *trained["sources"])) and "of 2 sources" in card
    (figures,) = json.loads(CliRunner().invoke(molsaki, ["report", "tiny", "--json"]).stdout)["runs"]
    assert (figures["dropped"]["questions"], figures["dropped"]["kept"]) == (8, 12)
    assert figures["dropped"]["reasons"] == {"attention": {"same record twice": 4}}
    again = two.run()
    assert again.stderr.count("nothing to do") == 5 and len(Path("runs/tiny/report.html").read_text()) > 0


def test_status_counts_questions_of_all_sources_and_training_waits_for_the_last(two: Tiny) -> None:
    def stages(command: str = "status") -> dict[str, tuple[int, int, str | None]]:
        plans = json.loads(two(command, "--json", *(("--dry-run",) if command == "run" else ())).stdout)
        return {plan["name"]: (plan["done"], plan["to_do"], plan["waits_for"]) for plan in plans}

    assert stages()["rationales"] == stages("run")["rationales"] == (0, 16, None)
    assert two("rationales", "--set", "more_rationales=[]").exit_code == 0
    assert stages() == {
        "rationales": (8, 8, None), "soft-labels": (0, 8, "rationales"), "train": (0, 1, "rationales"),
        "evaluate": (0, 1, "train"),
    }  # fmt: skip
    early = two("train")
    assert early.exit_code == 1 and "rationales of 8 questions are missing" in early.stderr
    assert "molsaki rationales CONFIG" in early.stderr
    assert two("rationales").exit_code == 0
    assert stages()["rationales"] == (16, 0, None) and stages()["train"] == (0, 1, "soft-labels")


def test_where_a_text_came_from_stays_known(two: Tiny) -> None:
    assert two("rationales", *sources(FILE, MENTOR)).exit_code == 0
    for folder in SOURCES:
        (record,) = read_provenance(Path(folder)).stages
        assert (record.stage, record.units, record.outcome) == ("rationales", 8, "done")
        config = load_config(Path(folder, "config.yaml"))
        assert config.name == Path(folder).name and len(config.more_rationales) == 2 * (folder == SOURCES[0])
        shown = CliRunner().invoke(molsaki, ["rationales", "show", f"{folder}/config.yaml", "--json"])
        assert shown.exit_code == 0 and json.loads(shown.stdout)["questions"] == 8
    later = CliRunner().invoke(molsaki, ["rationales", f"{SOURCES[1]}/config.yaml", "--runs", SOURCES[0]])
    assert later.exit_code == 0 and "8 of 8 questions there, nothing to do" in later.stderr
    whole = CliRunner().invoke(molsaki, ["run", f"{SOURCES[0]}/config.yaml", "--only", "rationales"])
    assert whole.exit_code == 0 and whole.stderr.count("nothing to do") == 3


def test_each_source_has_a_process_of_its_own_that_starts_no_other(two: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    here, commands, running = ForwardingStop.run, [], []

    def run(self: ForwardingStop, command: Sequence[str]) -> int:
        assert not running, f"{running} starts {command}"
        running.append(command)
        commands.append([argument for argument in command[4:] if argument != "--quiet"])
        code = here(self, command)
        running.clear()
        return code

    monkeypatch.setattr(ForwardingStop, "run", run)
    assert two("rationales", *sources(FILE, MENTOR), "--shard", "1/2").exit_code == 0
    assert [command[1] for command in commands] == [f"{folder}/config.yaml" for folder in SOURCES]
    assert all(command[-1] == "--supervised" and "1/2" in command for command in commands)
    commands.clear()
    assert two("rationales", "--shard", "2/2").exit_code == 0 and len(commands) == 2
    commands.clear()
    two.run(*sources(FILE))
    assert [command[0] for command in commands] == ["soft-labels", "train", "evaluate"]


def test_real_processes_end_as_well(two: Tiny) -> None:
    """None of them starts itself once more; those that did would end with the first one."""
    with Molsaki(
        ["rationales", "tiny.yaml"], cwd=two.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            said = process.communicate(60)[1]
        finally:
            process.kill()  # and with it whatever it started, which watches its standard input
    assert process.returncode == 0 and said.count("8 of 8 questions there, done") == 2
    assert len(read_provenance(Path(SOURCES[0])).stages) == len(read_provenance(Path(SOURCES[1])).stages) == 1


def test_shards_share_out_the_questions_of_each_source(two: Tiny) -> None:
    planned = [
        json.loads(two("rationales", "--dry-run", "--json", "--shard", f"{n}/2").stdout)[0]["to_do"] for n in (1, 2)
    ]
    assert sum(planned) == 16
    assert two("rationales", "--shard", "1/2").exit_code == 0
    assert json.loads(two("status", "--json").stdout)[0]["to_do"] == planned[1]
    assert two("rationales", "--shard", "2/2").exit_code == 0
    assert json.loads(two("status", "--json").stdout)[0]["to_do"] == 0


def test_a_matrix_may_vary_the_sources(two: Tiny) -> None:
    matrix = ("--set", f"matrix={json.dumps({'more_rationales': [[], [FILE]]})}")
    ran = two.run(*matrix)
    assert ran.stderr.count("rationales: 8 of 8 questions there, done") == 2
    found = sorted(Path("runs/tiny").glob("*/student/seed-0/training.json"))
    assert sorted(json.loads(path.read_text())["records"] for path in found) == [8, 12]
    assert len(list(Path("store/rationales").iterdir())) == 2 and len(list(Path("store/soft-labels").iterdir())) == 1
    assert two.run(*matrix).stderr.count("nothing to do") == 6
    alone = [path for path in Path("runs/tiny").glob("*/config.yaml") if (path.parent / "rationales-2").is_dir()]
    assert len(alone) == 1
    (record,) = read_provenance(alone[0].parent / "rationales-2").stages
    assert [each.id for each in executions(Path("runs"), "rationales", record.pace)] == [record.id]
    again = CliRunner().invoke(molsaki, ["run", str(alone[0]), "--runs", "runs/tiny"])
    assert again.exit_code == 0 and again.stderr.count("nothing to do") == 5


def test_a_source_that_fails_says_so_and_its_point_alone_is_not_finished(two: Tiny) -> None:
    wrong = {**MENTOR, "rationales": {**MENTOR["rationales"], "engine_arguments": {"nonsense": 1}}}
    single = two("run", *sources(FILE, wrong))
    assert single.exit_code == 2 and "nonsense" in single.stderr and "Traceback" not in single.stderr
    points = two("run", "--set", f"matrix={json.dumps({'more_rationales': [[], [wrong]]})}", name="points")
    assert points.exit_code == 1 and "1 of 2 points failed" in points.stderr
    assert len(list(Path("runs/points").glob("*/student/seed-0/training.json"))) == 1


def test_attention_is_recorded_over_the_records_of_all(two: Tiny) -> None:
    two.run("--set", "objective.name=molsaki-cot")
    assert two.trained()["records"] == 12 and two.trained()["attention"]


def test_a_source_like_another_adds_nothing(two: Tiny) -> None:
    two.run(*sources({"rationales": {"engine": "file", "path": "rationales.jsonl"}}))
    assert two.trained()["records"] == 8


def test_paths_from_home_are_found(two: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(two.folder))
    more = {"teacher": {"model": "~/teacher"}, "rationales": {"engine": "file", "path": "~/more.jsonl"}}
    config = load_config(Path("tiny.yaml"), [f"more_rationales={json.dumps([more])}"])
    (source,) = config.sources()
    assert source.teacher.model == f"{two.folder}/teacher" and source.rationales.path == f"{two.folder}/more.jsonl"
    assert load_config(Path("tiny.yaml")).sources()[0].teacher == load_config(Path("tiny.yaml")).teacher


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("3", "more_rationales: expected a list, found 3"),
        ("[3]", "more_rationales.0: expected a mapping of keys to values, found 3"),
        ("[{rational: {}}]", "more_rationales.0.rational: no such key; did you mean more_rationales.0.rationales?"),
        ("[{}, {rationales: {engin: file}}]", "more_rationales.1.rationales.engin: no such key; did you mean"),
        ("[{teacher: {}}]", "more_rationales.0.teacher.model: missing"),
        ("[{rationales: null}]", "more_rationales.0.rationales: expected a mapping"),
        ("[{rationales: {engine: file}}]", "more_rationales.0.rationales.path: missing; `engine: file` needs the file"),
        ("[{rationales: {author: x}}]", "more_rationales.0.rationales.author: needs `engine: openai`"),
        ("[{rationales: {shots: 1, as_student: true}}]", "more_rationales.0.rationales.shots: expected 0 with"),
        ("[{rationales: {samples: 2}}]", "more_rationales.0.rationales.samples: expected 1 with"),
        ("[{rationales: {temperature: .inf}}]", "more_rationales.0.rationales.temperature: expected a finite number"),
        (
            "[{rationales: {engine: transformers, engine_arguments: {a: {api_key: x}}}}]",
            "more_rationales.0.rationales.engine_arguments.a.api_key: a secret",
        ),
        (
            "[{rationales: {engine: openai, server: 'http://me:secret@host/v1'}}]",
            "more_rationales.0.rationales.server: holds a user or a password",
        ),
        (
            "[{rationales: {engine_arguments: {model: x}}}]",
            "more_rationales.0.rationales.engine_arguments.model: is said",
        ),
        ("[{teacher: {model: ./nope}}]", "error: more_rationales.0.teacher.model: model nope: expected a folder"),
        ("[{rationales: {engine: file, path: x.jsonl}}]", "error: more_rationales.0.rationales.path: there is no file"),
        ("[{rationales: {engine: openai}}]", "error: more_rationales.0.rationales.server: missing"),
    ],
)
def test_what_is_wrong_with_a_source_is_said_by_its_own_key(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, value: str, line: str
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    said = tiny.refused(f"more_rationales={value}")
    assert line in said and "secret@" not in said, said
