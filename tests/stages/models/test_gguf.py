"""GGUF files become folders that compute the same; what would compute something else is refused and leaves nothing."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from data.errors import ConfigError, DataError, ModelError
from stages.models import gguf
from stages.models.gguf import SOURCE, convert_gguf, read_gguf
from stages.models.identity import identify_model
from stages.runtime.progress import SilentProgress
from stages.settings import Dtype
from tests.fakes import tiny_tokenizer
from tests.gguf_files import SENTENCEPIECE, tiny_gemma, tiny_gguf, tiny_llama

TEXT = "Zoë has 3 pens.\nHow  many?"


def converted(file: Path, dtype: Dtype = "float32") -> Path:
    folder = file.parent / "folder"
    convert_gguf(file, folder, dtype=dtype, progress=SilentProgress())
    return folder


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[5, 80, 33, 7, 120, 64, 9]])).logits


MODELS: Mapping[str, tuple[Callable[[], PreTrainedModel], Mapping[str, object]]] = {
    "llama": (tiny_llama, {}),
    "qwen2": (lambda: tiny_llama("qwen2"), {}),
    "gemma2": (tiny_gemma, {**SENTENCEPIECE, "tokenizer.ggml.add_space_prefix": False}),
}


@pytest.mark.parametrize("architecture", MODELS)
def test_the_folder_computes_what_the_model_computed(tmp_path: Path, architecture: str) -> None:
    make, metadata = MODELS[architecture]
    file = tiny_gguf(tmp_path / "m.gguf", architecture, model=make(), metadata=metadata)
    model = AutoModelForCausalLM.from_pretrained(converted(file))
    assert model.dtype == torch.float32
    torch.testing.assert_close(logits(model), logits(make()), atol=1e-5, rtol=1e-5)


def test_quantised_weights_are_stored_as_their_blocks_say(tmp_path: Path) -> None:
    """Q8_0 by hand: of 32 values in a row, each is a whole number times the largest divided by 127, as float16."""
    weights = load_file(converted(tiny_gguf(tmp_path / "m.gguf", quantised=True)) / "model.safetensors")
    original = tiny_llama().state_dict()["model.layers.0.mlp.up_proj.weight"].numpy()
    for row in range(3):
        scale = np.float32(np.float16(np.abs(original[row, :32]).max() / 127))
        expected = scale * np.round(original[row, :32] * np.float32(127 / np.abs(original[row, :32]).max()))
        np.testing.assert_allclose(weights["model.layers.0.mlp.up_proj.weight"][row, :32], expected, rtol=1e-6)


def test_weights_can_be_stored_rounded(tmp_path: Path) -> None:
    folder = converted(tiny_gguf(tmp_path / "m.gguf"), "bfloat16")
    weights = load_file(folder / "model.safetensors")
    assert {values.dtype for values in weights.values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    original = tiny_llama().state_dict()
    assert all(torch.equal(values, original[name].bfloat16()) for name, values in weights.items())


def test_the_folder_is_a_plain_model(tmp_path: Path) -> None:
    file = tiny_gguf(tmp_path / "m.gguf", metadata={"general.name": "A tiny one", "tokenizer.chat_template": "{{ 1 }}"})
    folder = converted(file)
    assert identify_model(str(folder), None).source == "folder"
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert not config.keys() & {"quantization_config", "_model_name_or_path", "_name_or_path"}
    source = json.loads((folder / SOURCE).read_text())
    assert source["file"] == "m.gguf" and source["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert source["by"].keys() == {"molsaki", "transformers", "gguf"} and str(tmp_path) not in json.dumps(source)
    assert (folder / "chat_template.jinja").read_text() == "{{ 1 }}"
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "m.gguf"]


def test_the_tokenizer_is_the_files(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted(tiny_gguf(tmp_path / "m.gguf")))
    assert tokenizer(TEXT)["input_ids"] == tiny_tokenizer()(TEXT)["input_ids"]
    assert len(tokenizer) == len(tiny_tokenizer())  # and not one more, <|endoftext|>, that the model does not know
    assert tokenizer.is_fast


@pytest.mark.parametrize(
    ("metadata", "begin"),
    [
        ({}, []),
        ({"tokenizer.ggml.add_bos_token": True}, [0]),
        ({"tokenizer.ggml.pre": "llama-bpe"}, [0]),
        ({"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": False}, []),
        ({"tokenizer.ggml.bos_token_id": None, "tokenizer.ggml.add_bos_token": True}, []),
    ],
)
def test_texts_begin_as_the_file_says(tmp_path: Path, metadata: Mapping[str, object], begin: list[int]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted(tiny_gguf(tmp_path / "m.gguf", metadata=metadata)))
    plain = tiny_tokenizer()("12 pens")["input_ids"]
    assert tokenizer("12 pens")["input_ids"] == [*begin, *plain]


def test_a_file_whose_texts_all_end_is_refused(tmp_path: Path) -> None:
    file = tiny_gguf(tmp_path / "m.gguf", metadata={"tokenizer.ggml.add_eos_token": True})
    with pytest.raises(ModelError, match="so no prompt would be open"):
        converted(file)


def test_gemma_gets_its_begin_token(tmp_path: Path) -> None:
    metadata = {**SENTENCEPIECE, "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_space_prefix": False}
    file = tiny_gguf(tmp_path / "m.gguf", "gemma2", model=tiny_gemma(), metadata=metadata)
    tokenizer = AutoTokenizer.from_pretrained(converted(file))
    assert tokenizer.convert_ids_to_tokens(tokenizer("a 1")["input_ids"]) == ["<bos>", "a", "\u2581", "1"]


def test_generation_ends_at_the_end_of_a_turn_as_well(tmp_path: Path) -> None:
    folder = converted(tiny_gguf(tmp_path / "m.gguf", metadata={"tokenizer.ggml.eot_token_id": 2}))
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [1, 2]
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == 1


REFUSED: Mapping[str, tuple[dict[str, object], str]] = {
    "scaled positions": (
        {"metadata": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}},
        r"positions are scaled \(linear, by 4.0\)",
    ),
    "scaled in an older way": ({"metadata": {"llama.rope.scale_linear": 2.0}}, "positions are scaled"),
    "weights left out": (
        {"extra": {"rope_freqs.weight": np.ones(4, np.float32)}},
        r"what is left out \(perhaps rope_freqs.weight\)",
    ),
    "weights missing": ({"without": "blk.1.ffn_up.weight"}, "no weights for model.layers.1.mlp.up_proj.weight"),
    "an unknown architecture": ({"named": "nosuch"}, "does not read this nosuch model"),
    "an unknown tokenizer": ({"metadata": {"tokenizer.ggml.model": "rwkv"}}, "does not read this llama model"),
    "no tokenizer": ({"metadata": {"tokenizer.ggml.tokens": None}}, "no whole model: no tokenizer.ggml.tokens"),
    "one of several parts": ({"metadata": {"split.count": 3}}, "one of 3 parts .*llama-gguf-split --merge"),
    "a space in front or not": (
        {"architecture": "gemma2", "metadata": {**SENTENCEPIECE, "tokenizer.ggml.add_space_prefix": True}},
        "add_space_prefix is true, but .* begins a text with '1'",
    ),
    "an end token that is none": ({"metadata": {"tokenizer.ggml.eos_token_id": 999}}, "does not read this llama model"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_would_compute_something_else_is_refused_and_leaves_nothing(tmp_path: Path, reason: str) -> None:
    options, said = REFUSED[reason]
    model = tiny_gemma() if options.get("architecture") == "gemma2" else None
    file = tiny_gguf(tmp_path / "m.gguf", model=model, **options)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=said) as caught:
        converted(file)
    assert "\n" not in str(caught.value) and "m.gguf" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_a_tokenizer_that_loses_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = AutoTokenizer.from_pretrained

    def lossy(*arguments: object, **options: object) -> object:
        tokenizer = kept(*arguments, **options)
        tokenizer.decode = lambda *_, **__: "Zoe paid"
        return tokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lossy)
    with pytest.raises(ModelError, match="its tokenizer makes 'Zoe paid' of"):
        converted(tiny_gguf(tmp_path / "m.gguf"))
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize("name", ["bos", "eos"])
def test_another_token_at_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """transformers takes these two from the file; a later release that does not is noticed."""
    other = tiny_tokenizer()
    setattr(other, f"{name}_token", "<pad>")
    monkeypatch.setattr(gguf, "load_tokenizer", lambda _folder, _revision: other)
    with pytest.raises(ModelError, match=rf"tokenizer.ggml.{name}_token_id is \d, but transformers' tokenizer has 2"):
        converted(tiny_gguf(tmp_path / "m.gguf"))


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    with pytest.raises(ConfigError, match="there is no such file"):
        read_gguf(file)
    with pytest.raises(ConfigError, match="it is a folder"):
        read_gguf(tmp_path)
    for content in (b"", b"GG", b"PK\x03\x04 a zip file"):
        file.write_bytes(content)
        with pytest.raises(DataError, match="no GGUF file: it begins with"):
            read_gguf(file)


def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = tiny_gguf(tmp_path / "m.gguf").read_bytes()
    for size in (4, 8, 23, 24, 40, 200, len(whole) // 20, len(whole) // 2, len(whole) - 4):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        with pytest.raises((DataError, ModelError), match="cut off or damaged") as caught:
            read_gguf(tmp_path / "cut.gguf")
        assert "\n" not in str(caught.value)


def test_a_folder_that_holds_something_stays_as_it_is(tmp_path: Path) -> None:
    file, folder = tiny_gguf(tmp_path / "m.gguf"), tmp_path / "folder"
    folder.mkdir()
    (folder / "notes").write_text("mine")
    with pytest.raises(ConfigError, match="the folder is not empty"):
        converted(file)
    assert [path.name for path in folder.iterdir()] == ["notes"]
    (folder / "notes").unlink()
    assert (converted(file) / "config.json").is_file()
    with pytest.raises(ConfigError, match="it is no folder"):
        convert_gguf(file, file, dtype="float32", progress=SilentProgress())


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path) -> None:
    class Stopping(SilentProgress):
        def __init__(self, after: int) -> None:
            self.left = after

        def advance(self, count: int = 1) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    file = tiny_gguf(tmp_path / "m.gguf")
    for after in range(1, 5):
        with pytest.raises(KeyboardInterrupt):
            convert_gguf(file, tmp_path / "folder", dtype="float32", progress=Stopping(after))
        assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_what_a_killed_conversion_left_goes_after_a_day(tmp_path: Path) -> None:
    file = tiny_gguf(tmp_path / "m.gguf")
    old, new = (tmp_path / f".folder.converting-{name}" for name in ("old", "new"))
    for left in (old, new):
        left.mkdir()
    os.utime(old, (0, 0))
    converted(file)
    assert not old.exists() and new.exists()


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    file = tiny_gguf(tmp_path / "m.gguf")
    monkeypatch.setattr(gguf.shutil, "disk_usage", lambda _folder: Usage)
    with pytest.raises(OSError, match="No space left") as caught:
        converted(file)
    assert caught.value.filename == str(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_what_lies_beside_the_file_is_not_mixed_in(tmp_path: Path) -> None:
    file = tiny_gguf(tmp_path / "m.gguf")
    auto_map = {"AutoTokenizer": ["x.X", None]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<pad>", "auto_map": auto_map}))
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoConfig": "x.X"}}')
    (tmp_path / "x.py").write_text("raise SystemExit('run')")
    assert AutoTokenizer.from_pretrained(converted(file)).eos_token_id == 1
