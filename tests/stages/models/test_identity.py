"""Which model is meant: folders by content, hub ids by commit, and one clear line where it cannot be told."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from data.errors import ConfigError
from stages.models.identity import identify_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def model_folder(path: Path, *, weights: bytes = b"weights", vocabulary: str = "{}") -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (path / "model.safetensors").write_bytes(weights)
    (path / "tokenizer.json").write_text(vocabulary)
    (path / "README.md").write_text("not part of the model")
    return path


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of downloads and a hub client that may not use the network."""
    downloads = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(downloads))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return downloads


def test_copies_of_a_folder_are_the_same_model(tmp_path: Path) -> None:
    first, second = model_folder(tmp_path / "a" / "tiny"), model_folder(tmp_path / "b" / "tiny")
    (second / "README.md").write_text("another text")
    one, two = identify_model(str(first), None), identify_model(str(second), None)
    assert (one.source, one.path, one.name, one.hub_revision) == ("folder", str(first), "tiny", None)
    assert (one.revision, one.tokenizer) == (two.revision, two.tokenizer)
    assert len(one.revision) == len(one.tokenizer) == 64


def test_weights_and_tokenizer_are_told_apart(tmp_path: Path) -> None:
    base = identify_model(str(model_folder(tmp_path / "base")), None)
    weights = identify_model(str(model_folder(tmp_path / "weights", weights=b"others")), None)
    tokenizer = identify_model(str(model_folder(tmp_path / "tokenizer", vocabulary='{"a": 0}')), None)
    assert weights.revision != base.revision and weights.tokenizer == base.tokenizer
    assert tokenizer.tokenizer != base.tokenizer and tokenizer.revision == base.revision


def test_a_folder_written_again_is_noticed(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    before = identify_model(str(folder), None)
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert identify_model(str(folder), None).revision != before.revision


@pytest.mark.parametrize("model", ["/no/such/model", "./missing", "~/no-such-folder-here", "a/b/c"])
def test_a_local_path_that_does_not_exist_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a folder .* but there is none") as caught:
        identify_model(model, None)
    assert "\n" not in str(caught.value)


def test_a_file_is_not_a_model_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"")
    with pytest.raises(ConfigError, match="but it is a file"):
        identify_model(str(file), None)


@pytest.mark.parametrize("name", ["model.gguf", "model.Q4_1.GGUF"])
@pytest.mark.parametrize("weights", [True, False])
def test_a_gguf_file_is_refused_with_the_command_that_converts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, weights: bool
) -> None:
    (tmp_path / name).write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    for model in (name, f"./{name}", str(tmp_path / name), str(tmp_path), "."):
        with pytest.raises(ConfigError, match=rf"molsaki convert-gguf \S*{re.escape(name)} FOLDER$") as caught:
            identify_model(model, None, weights=weights)
        assert "\n" not in str(caught.value)


def test_the_name_of_a_gguf_file_that_is_not_there_is_no_hub_id(offline_hub: Path) -> None:
    with pytest.raises(ConfigError, match=r"molsaki convert-gguf model\.gguf FOLDER"):
        identify_model("model.gguf", None)
    with pytest.raises(ConfigError, match="hub cannot be reached"):
        identify_model("owner/model.gguf", None)


def test_a_gguf_file_beside_a_whole_model_does_no_harm(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / "model.gguf").write_bytes(b"GGUF")
    assert identify_model(str(folder), None).source == "folder"
    (folder / "model.safetensors").unlink()
    assert identify_model(str(folder), None, weights=False).source == "folder"
    with pytest.raises(ConfigError, match="convert-gguf"):
        identify_model(str(folder), None)


@pytest.mark.parametrize(
    ("file", "complaint"),
    [("config.json", "config.json"), ("model.safetensors", "weights"), ("tokenizer.json", "a tokenizer")],
)
def test_what_is_missing_in_a_folder_is_named(tmp_path: Path, file: str, complaint: str) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / file).unlink()
    with pytest.raises(ConfigError, match=f"lacks {complaint}"):
        identify_model(str(folder), None)


def test_a_folder_without_weights_will_do_where_weights_are_not_asked_for(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    assert identify_model(str(folder), None, weights=False).source == "folder"


def test_a_hub_id_that_was_never_downloaded_is_refused_without_network(offline_hub: Path) -> None:
    with pytest.raises(ConfigError, match="hub cannot be reached") as caught:
        identify_model("owner/name", None)
    assert "\n" not in str(caught.value) and "owner/name" in str(caught.value)


def test_what_is_no_hub_id_is_refused(offline_hub: Path) -> None:
    with pytest.raises(ConfigError, match="neither a local folder nor a hub id"):
        identify_model("white space/name!", None)


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_hub_id_is_resolved_to_the_commit_downloaded_earlier(offline_hub: Path, revision: str | None) -> None:
    snapshot = model_folder(offline_hub / "models--owner--name" / "snapshots" / COMMIT)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(COMMIT)
    identity = identify_model("owner/name", revision)
    assert (identity.source, identity.path, identity.hub_revision) == ("hub", "owner/name", COMMIT)
    assert identity.tokenizer == identify_model(str(snapshot), None).tokenizer


def test_identifying_a_folder_imports_neither_torch_nor_the_hub_client(tmp_path: Path) -> None:
    program = (
        "import sys; from stages.models.identity import identify_model; identify_model(sys.argv[1], None);"
        "print(sorted({'torch', 'transformers', 'vllm', 'zarr', 'huggingface_hub'} & set(sys.modules)))"
    )
    folder = model_folder(tmp_path / "model")
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
