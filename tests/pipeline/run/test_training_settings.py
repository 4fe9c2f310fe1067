"""What the settings of training mean for a run: which of them make another student, and which are refused at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cache.fingerprints import fingerprint as fingerprint_of
from data.errors import ConfigError
from pipeline.config.load import load_config
from pipeline.config.matrix import load_matrix
from pipeline.console.progress import NO_BARS, QUIET_LIBRARIES
from pipeline.run.inputs import Inputs
from pipeline.run.points import Run, look
from tests.pipeline.conftest import Experiment

PEFT = "student.peft={peft_type: LORA, r: 4}"
DEV = "data.dev=[{name: synthetic, split: dev, limit: 3}]"
STOPPING = "training.early_stopping={patience: 1}"


@pytest.fixture
def fingerprint(experiment: Experiment):
    def of(*overrides: str) -> str:
        matrix = load_matrix(Path("run.yaml"), overrides)
        (stages,) = look(Run(matrix=matrix, folder=Path("runs") / matrix.name))
        return stages.open("train").fingerprints()["students"]

    assert experiment("rationales", "run.yaml").exit_code == 0
    return of


def test_only_what_changes_a_student_changes_its_fingerprint(fingerprint):
    plain = fingerprint()
    alike = ("training.processes=2", "training.report_to=[tensorboard]", "training.gradient_checkpointing=true", DEV)
    assert [fingerprint(one) for one in alike] == [plain] * len(alike)
    other = {
        plain,
        fingerprint(PEFT),
        fingerprint(PEFT.replace("r: 4", "r: 8")),
        fingerprint("student.layers=2"),
        fingerprint("training.gradient_accumulation=2"),
        fingerprint(DEV, STOPPING),
        fingerprint(DEV.replace("3", "4"), STOPPING),
        fingerprint(DEV, STOPPING.replace("1", "2")),
        fingerprint(DEV, STOPPING, "evaluation.max_new_tokens=7"),
    }
    assert len(other) == 9


def test_a_student_that_keeps_all_its_layers_has_the_fingerprint_of_before(experiment: Experiment):
    assert experiment("rationales", "run.yaml").exit_code == 0
    matrix = load_matrix(Path("run.yaml"))
    (stages,) = look(Run(matrix=matrix, folder=Path("runs") / matrix.name))
    train, spec = stages.open("train"), stages.open("train")._spec()
    assert set(spec) == {
        "schema", "student", "tokenizer", "initialise", "max_length", "objective", "training", "rationales",
        "attention",
    }  # fmt: skip
    keys = [example.key for example in stages.all_attention.selection.examples]
    assert train.fingerprint == fingerprint_of({**spec, "records": sorted(keys)})


@pytest.mark.parametrize(
    ("overrides", "pinned"),
    [
        ((), "9a3cfc28afced3a8"),
        (("objective.name=dss",), "afd2bf9077643d92"),
        (("objective.name=fine-tune-cot", "evaluation.prompts=[explain]"), "36d47223b09d0d37"),
        (("objective.name=mmi", "objective.beta=0.3"), "acd20578dcb7c704"),
        (("objective.alignment=uniform", "objective.beta=3", "objective.rows=softmax"), "2025f4bcbff424c2"),
    ],
)
def test_students_trained_before_there_were_terms_are_found_again(experiment: Experiment, overrides, pinned: str):
    """Of what version 0.1 knew before, in hashes that it gave; whoever changes one raises STUDENT_SCHEMA."""
    assert experiment("rationales", "run.yaml").exit_code == 0
    (stages,) = look(Run(matrix=load_matrix(Path("run.yaml"), overrides), folder=Path("runs/small")))
    spec = stages.open("train")._spec()
    attention = None if spec["attention"] is None else "some"
    assert fingerprint_of({**spec, "rationales": None, "attention": attention})[:16] == pinned


@pytest.mark.parametrize("command", [("run", "run.yaml", "--dry-run"), ("status", "run.yaml"), ("run", "run.yaml")])
def test_more_layers_than_the_student_has_are_refused_before_anything_is_done(experiment: Experiment, command):
    path = experiment.folder / "student"
    (path / "config.json").write_text('{"n_layer": 6}')
    refused = experiment(*command, "--set", "student.layers=7")
    assert refused.exit_code == 2
    assert f"student.layers: expected at most 6, the layers of {path}, found 7" in refused.stderr.replace("\n", "")
    assert not Path("store").exists()
    assert experiment("status", "run.yaml", "--set", "student.layers=6").exit_code == 0


@pytest.mark.parametrize(
    ("pair", "layers", "said"),
    [
        ("[5, 1]", 6, "[5, 1] names layer 5 of the teacher, which has 4"),
        ("[4, 7]", 6, "[4, 7] names layer 7 of the student, which has 6"),
        ("[4, 3]", 2, "[4, 3] names layer 3 of the student, which has 2"),
    ],
)
def test_a_pair_of_layers_that_are_not_there_is_refused_before_anything_is_done(
    experiment: Experiment, pair: str, layers: int, said: str
):
    for name, has in (("teacher", 4), ("student", 6)):
        (experiment.folder / name / "config.json").write_text(json.dumps({"num_hidden_layers": has}))
    asked = ("--set", f"objective.alignment={{single: {pair}}}", "--set", f"student.layers={layers}")
    for command in (("run", "run.yaml"), ("run", "run.yaml", "--dry-run"), ("status", "run.yaml")):
        refused = experiment(*command, *asked)
        assert refused.exit_code == 2
        assert refused.stderr == f"error: objective.alignment: single: {said}\n"
    assert not Path("store").exists()
    for fine in ("objective.alignment={single: [4, 2]}", "objective.name=dss"):
        assert experiment("status", "run.yaml", *asked, "--set", fine).exit_code == 0


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        (
            f"data.dev=[] {STOPPING}",
            r"training\.early_stopping: needs questions to measure on, never those of the test; name some in data\.dev",
        ),
        ("training.early_stopping={patiense: 2}", r"patiense: no such key; did you mean .*patience"),
        ("training.processes=64", r"training\.batch_size: expected at least the 64 of training\.processes"),
        ("training.report_to=[tensorbord]", r"training\.report_to.*did you mean tensorboard\?"),
        ("student.peft={r: {a: [1]}}", r"student\.peft"),
    ],
)
def test_what_makes_no_sense_is_refused(experiment: Experiment, override: str, complaint: str):
    with pytest.raises(ConfigError, match=complaint):
        load_config(Path("run.yaml"), override.split(" ", 1) if override.startswith("data.dev") else [override])


def test_an_adapter_is_checked_before_stage_one(experiment: Experiment):
    result = experiment("run", "run.yaml", "--set", "student.peft={peft_type: LORA, rank: 4}")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: student.peft.rank: LoraConfig of peft has no such key")
    assert not Path("store").exists()


@pytest.mark.parametrize("command", [("run",), ("train",), ("train", "--dry-run")])
def test_bars_of_libraries_are_off_before_a_check_loads_them(
    experiment: Experiment, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    """A library that is loaded already reads the environment no more."""
    for name in (*NO_BARS, *QUIET_LIBRARIES):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    seen: list[bool] = []
    off = {*NO_BARS, *QUIET_LIBRARIES}
    monkeypatch.setattr(Inputs, "check", lambda *_, **__: seen.append(off <= os.environ.keys()))
    experiment(command[0], "run.yaml", *command[1:])
    assert seen[0] is True


def test_a_tracker_that_is_missing_is_named_before_stage_one(experiment: Experiment, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="wandb is not installed; install it with: pip install wandb"):
        Inputs(load_config(Path("run.yaml"), ["training.report_to=[wandb]"])).check(("train",))


def test_torch_is_loaded_for_an_adapter_only(experiment: Experiment):
    code = (
        "import sys; from pathlib import Path; from pipeline.config.load import load_config; "
        "from pipeline.run.inputs import Inputs; config = load_config(Path('run.yaml'), sys.argv[1:]); "
        "Inputs(config).check(('train',)); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"
    assert yaml.safe_load(Path("run.yaml").read_text())
