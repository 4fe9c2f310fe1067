"""What is handed on to the hub, and what stays here; a stand-in takes the calls that the real client would take."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import filter_repo_objects

from data.errors import ConfigError, EngineError, MissingRecordsError
from pipeline.results.push import push_student


class Hub:
    """Takes what the real client takes, and keeps what it would have uploaded."""

    def __init__(self) -> None:
        self.created: dict[str, object] = {}
        self.uploaded: set[str] = set()

    def create_repo(self, *arguments: object, **options: object) -> str:
        bound = inspect.signature(HfApi.create_repo).bind(self, *arguments, **options)
        self.created = dict(bound.arguments)
        return f"https://hub/{bound.arguments['repo_id']}"

    def upload_folder(self, **options: object) -> None:
        bound = inspect.signature(HfApi.upload_folder).bind(self, **options).arguments
        folder = Path(bound["folder_path"])
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        chosen = filter_repo_objects(
            files, allow_patterns=bound["allow_patterns"], ignore_patterns=bound["ignore_patterns"]
        )
        self.uploaded = set(chosen)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "small"
    student = folder / "student" / "seed-0"
    names = ("config.json", "model.safetensors", "tokenizer.json", "training.json", "README.md", "molsaki.yaml")
    for name in (*names, "checkpoints/checkpoint-2/model.safetensors", "adapter/adapter_model.safetensors"):
        (student / name).parent.mkdir(parents=True, exist_ok=True)
        (student / name).write_text("")
    return folder


def test_weights_tokenizer_and_card_go_and_paths_of_this_machine_stay(run: Path):
    hub = Hub()
    assert push_student(run, 0, "me/student", private=True, hub=hub) == "https://hub/me/student"
    assert (hub.created["private"], hub.created["exist_ok"]) == (True, True)
    assert hub.uploaded == {
        "config.json", "model.safetensors", "tokenizer.json", "training.json", "README.md",
        "adapter/adapter_model.safetensors",
    }  # fmt: skip


def test_a_student_that_is_not_there_names_the_command(run: Path):
    with pytest.raises(MissingRecordsError, match="molsaki train CONFIG --seed 3"):
        push_student(run, 3, "me/student", private=True, hub=Hub())
    with pytest.raises(ConfigError, match="no such folder"):
        push_student(run.parent / "other", 0, "me/student", private=True, hub=Hub())


def test_an_id_that_is_none_is_refused(run: Path):
    with pytest.raises(ConfigError, match="a/b/c"):
        push_student(run, 0, "a/b/c", private=True)


def test_a_hub_that_does_not_answer_is_one_clear_line(run: Path):
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_secret", "HF_HUB_OFFLINE": "0"}
    result = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline", "push", str(run), "me/student"],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == EngineError.exit_code
    assert "me/student: the hub did not take it" in result.stderr
    assert "Traceback" not in result.stderr and "hf_secret" not in result.stderr
