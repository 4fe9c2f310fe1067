"""`molsaki convert-gguf`: what it prints and how it ends."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from data.errors import Interrupted
from pipeline.cli.main import molsaki
from stages.models import gguf
from stages.models.identity import identify_model
from tests.gguf_files import tiny_gguf


def convert(*arguments: object) -> Result:
    return CliRunner().invoke(molsaki, ["convert-gguf", *map(str, arguments)])


def test_it_prints_the_folder_that_models_are_named_by(tmp_path: Path) -> None:
    file, folder = tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "models" / "tiny"
    done = convert(file, folder, "--dtype", "bfloat16")
    assert (done.exit_code, done.stdout) == (0, f"{folder}\n")
    assert "tiny.gguf: llama, 35,168 weights" in done.stderr
    assert identify_model(done.stdout.strip(), None).name == "tiny"
    again = convert(file, folder)
    assert again.exit_code == 2 and again.stderr.startswith(f"error: {folder}: the folder is not empty")


def test_quiet_prints_the_folder_alone(tmp_path: Path) -> None:
    done = convert(tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "tiny", "--quiet")
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'tiny'}\n") and "35,168" not in done.stderr


def test_what_cannot_be_converted_is_wrong_usage_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "cut.gguf"
    file.write_bytes(tiny_gguf(tmp_path / "tiny.gguf").read_bytes()[:5000])
    for what in (file, tmp_path / "missing.gguf", tiny_gguf(tmp_path / "other.gguf", named="nosuch")):
        done = convert(what, tmp_path / "folder")
        assert done.exit_code == 2 and str(what) in done.stderr
        assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
            done.stderr.splitlines()[-1]
        ]


def test_a_full_disk_and_a_signal_end_it_as_any_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tiny_gguf(tmp_path / "tiny.gguf")

    def failing(error: Exception) -> Result:
        def convert_gguf(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(gguf, "convert_gguf", convert_gguf)
        return convert(file, tmp_path / "folder")

    full = failing(OSError(28, "No space left on device", str(tmp_path)))
    assert full.exit_code == 1 and "no space left on device" in full.stderr
    assert failing(Interrupted("stopped")).exit_code == 75
