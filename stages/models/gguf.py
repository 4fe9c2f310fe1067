"""From a GGUF file to the plain folder that everything here loads: weights, tokenizer and configuration, written once.

In: one file as llama.cpp writes it, quantised or not. Out: a folder with the de-quantised weights as safetensors, a
`tokenizer.json`, the configuration, what ends a text, and `converted_from.json`, which says what was made from what.
transformers reads the file, but drops what it does not know of it, such as begin tokens and scaled positions, and says
nothing. So the folder is checked against the file before it gets its name: all weights, the tokens at both ends of a
text, the tokenizer there and back, scaled positions. What does not agree is refused. No pickle and no code is read.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from gguf import GGUFReader, GGUFValueType
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel

from cache.durable import ABANDONED_SECONDS, DISK_FULL, age, make_folder, sync_file, sync_folder
from data.errors import ConfigError, DataError, ModelError, MolsakiError, first_line
from stages.models.identity import identify_model
from stages.models.save import save_model, save_tokenizer
from stages.models.size import model_size
from stages.models.tokenizer import end_tokens, load_tokenizer
from stages.runtime.progress import Progress
from stages.settings import Dtype

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

MAGIC = b"GGUF"
SOURCE = "converted_from.json"
ADDS_BEGIN = {"llama-bpe", "llama3", "llama-v3", "falcon3"}
"""Byte-level vocabularies (`tokenizer.ggml.pre`) for which a silent file means a begin token, by llama.cpp."""
BLANK = "\u2581"
"""What SentencePiece writes for a space."""
BYTES_A_VALUE: Mapping[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    """What a file says of itself: its metadata without lists, how many tokens, and how many values each tensor has."""

    path: Path
    metadata: Mapping[str, object]
    tokens: int
    values: Mapping[str, int]

    @property
    def architecture(self) -> str:
        """The model's kind, by llama.cpp's name."""
        return str(self.metadata["general.architecture"])

    def token(self, name: str) -> int | None:
        """The id of a special token such as `bos`; None where the file has none."""
        found = self.metadata.get(f"tokenizer.ggml.{name}_token_id")
        return int(found) if isinstance(found, int) else None

    def adds(self, name: str) -> bool:
        """Whether the file wants the token `bos` or `eos` at its end of each text; as llama.cpp, where it is silent."""
        if self.token(name) is None:
            return False
        by_default = name == "bos" and (
            self.metadata.get("tokenizer.ggml.model") == "llama"
            or self.metadata.get("tokenizer.ggml.pre") in ADDS_BEGIN
        )
        return bool(self.metadata.get(f"tokenizer.ggml.add_{name}_token", by_default))


def convert_gguf(path: Path, folder: Path, *, dtype: Dtype, progress: Progress) -> None:
    """Write the model in `path` as a plain folder, which appears whole or not at all.

    Raises `ConfigError` for a file that is not there and a folder that holds something, `DataError` for what is no GGUF
    file or is cut off, and `ModelError` for what transformers does not read, or not as the file says.
    """
    _require_empty(folder)
    file = read_gguf(path)
    total = sum(file.values.values())
    progress.note(f"{path.name}: {file.architecture}, {total:,} weights; {total * BYTES_A_VALUE[dtype] / 1e6:,.0f} MB")
    progress.start("converting", 4)
    with _appearing(folder, total * BYTES_A_VALUE[dtype]) as unfinished, _alone(path) as place:
        model = _read_model(file, place, dtype)
        progress.advance()
        _require_same_positions(file, model.config)
        _save_model(file, model, unfinished)
        progress.advance()
        _save_tokenizer(file, place, unfinished)
        _write_source(file, dtype, unfinished)
        progress.advance()
        _check(file, model.config, unfinished)
        progress.advance()


def read_gguf(path: Path) -> GgufFile:
    """Read what a file says of itself; `DataError` unless it is a GGUF file as long as it says."""
    if not path.is_file():
        raise ConfigError(f"{path}: {'it is a folder' if path.is_dir() else 'there is no such file'}; name a GGUF file")
    with path.open("rb") as opened:
        begin = opened.read(len(MAGIC))
    if begin != MAGIC:
        raise DataError(f"{path}: no GGUF file: it begins with {begin!r}, expected {MAGIC!r}")
    try:
        reader = GGUFReader(path)
        found = {name: field.contents() for name, field in reader.fields.items() if _is_scalar(field.types)}
        tokens = reader.fields.get("tokenizer.ggml.tokens")
        values = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
    except Exception as error:  # the reader believes every number in the file, and fails wherever one leads it astray
        size = path.stat().st_size
        raise DataError(
            f"{path}: cut off or damaged: it cannot be read to its end within {size:,} bytes ({first_line(error)}); "
            "compare its size or hash with the original's"
        ) from error
    file = GgufFile(path=path, metadata=found, tokens=0 if tokens is None else len(tokens.data), values=values)
    _require_model(file)
    return file


def _is_scalar(types: Sequence[GGUFValueType]) -> bool:
    return bool(types) and types[0] != GGUFValueType.ARRAY


def _require_model(file: GgufFile) -> None:
    parts_of_one = {
        "general.architecture": file.metadata.get("general.architecture"),
        "weights": file.values,
        "tokenizer.ggml.tokens": file.tokens,
    }
    if missing := [name for name, found in parts_of_one.items() if not found]:
        raise ModelError(f"{file.path}: it holds no whole model: no {' and no '.join(missing)}")
    parts = file.metadata.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise ModelError(f"{file.path}: one of {parts} parts of a model; join them by `llama-gguf-split --merge`")
    if file.adds("eos"):
        raise ModelError(
            f"{file.path}: by tokenizer.ggml.add_eos_token every text ends with the end token, so no prompt would be "
            "open; such a model continues no text"
        )


def _require_empty(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{folder}: it is no folder; name one that does not exist yet")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: the folder is not empty; name one that does not exist yet")


@contextmanager
def _appearing(folder: Path, size: int) -> Iterator[Path]:
    """A folder beside `folder` to fill, which takes its name once it is on disk; what a killed process left goes."""
    make_folder(folder.parent)
    begin = f".{folder.name}.converting-"
    for left in folder.parent.glob(f"{begin}*"):
        if age(left) > ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    if shutil.disk_usage(folder.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder.parent))
    unfinished = folder.with_name(begin + secrets.token_hex(8))
    unfinished.mkdir()
    try:
        yield unfinished
        for written in unfinished.iterdir():
            sync_file(written)
        sync_folder(unfinished)
        unfinished.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """A link to the file in a folder of its own, since transformers mixes in what lies beside it."""
    with TemporaryDirectory(prefix="molsaki-gguf-") as folder:
        link = Path(folder) / "model.gguf"
        link.symlink_to(path.resolve())
        yield link


@contextmanager
def _errors_name(file: GgufFile) -> Iterator[None]:
    """Let what transformers raises inside be a `ModelError` of one line; it raises whatever it meets first."""
    try:
        yield
    except (MolsakiError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        raise ModelError(
            f"{file.path}: transformers does not read this {file.architecture} model: {first_line(error)}"
        ) from error


def _read_model(file: GgufFile, place: Path, dtype: Dtype) -> PreTrainedModel:
    """The model with its weights de-quantised, none of which may be missing."""
    with _errors_name(file):
        model, loading = AutoModelForCausalLM.from_pretrained(
            place.parent,
            gguf_file=place.name,
            dtype=getattr(torch, dtype),
            quantization_config=GgufConfig(
                dequantize=True
            ),  # else it fetches kernels, which are code, and is not saved
            local_files_only=True,
            output_loading_info=True,
        )
    if loading["missing_keys"]:
        names = sorted(loading["missing_keys"])
        raise ModelError(
            f"{file.path}: transformers finds no weights for {names[0]} of {type(model).__name__} in it "
            f"({len(names)} are missing); it does not read this kind of model"
        )
    return model


def _require_same_positions(file: GgufFile, config: "PreTrainedConfig") -> None:
    """Refuse a model whose positions are scaled in a way that the configuration does not have."""
    begin = f"{file.architecture}.rope."
    kind = file.metadata.get(f"{begin}scaling.type", "none")
    factor = file.metadata.get(f"{begin}scaling.factor", file.metadata.get(f"{begin}scale_linear", 1.0))
    if kind == "none" and factor == 1.0:
        return
    found = getattr(config, "rope_parameters", None) or {}
    if (found.get("rope_type"), found.get("factor")) != (kind, factor):
        raise ModelError(
            f"{file.path}: its positions are scaled ({kind}, by {factor}), which transformers does not read from it; "
            "take the original model"
        )


def _save_model(file: GgufFile, model: PreTrainedModel, folder: Path) -> None:
    """Save weights, configuration and what ends a text, as of a model that was never a GGUF file's."""
    for name in ("quantization_config", "_model_name_or_path"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    ends = {token for token in (file.token("eos"), file.token("eot")) if token is not None}  # llama.cpp ends at both
    save_model(model, folder, ends or end_tokens(model.generation_config.eos_token_id))


def _save_tokenizer(file: GgufFile, place: Path, folder: Path) -> None:
    """Save the tokenizer, told to begin and end texts as the file says: transformers does not look at that.

    A token behind the file's last one is none of the model's. transformers adds one where a byte-level vocabulary has
    no <|endoftext|>.
    """
    with _errors_name(file):
        tokenizer = AutoTokenizer.from_pretrained(
            place.parent,
            gguf_file=place.name,
            add_bos_token=file.adds("bos"),
            add_eos_token=file.adds("eos"),
        )
        save_tokenizer(tokenizer, folder)
    path = folder / "tokenizer.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    saved["added_tokens"] = [token for token in saved["added_tokens"] if token["id"] < file.tokens]
    path.write_text(json.dumps(saved, ensure_ascii=False, indent=2), encoding="utf-8")


def _write_source(file: GgufFile, dtype: Dtype, folder: Path) -> None:
    with file.path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    source = {
        "file": file.path.name,
        "sha256": digest,
        "architecture": file.architecture,
        "dtype": dtype,
        "by": {name: version(name) for name in ("molsaki", "transformers", "gguf")},
    }
    (folder / SOURCE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")


def _check(file: GgufFile, config: "PreTrainedConfig", folder: Path) -> None:
    """Hold what was written, as it will be loaded, against the file."""
    _require_all_weights(file, config, folder)
    try:
        tokenizer = load_tokenizer(str(folder), None)
    except ConfigError as error:  # it names the folder, which is not there afterwards, and what to change in it
        trouble = str(error).removeprefix(f"model {folder}: ").partition(";")[0]
        raise ModelError(f"{file.path}: {trouble}; take the original model") from error
    _require_same_ends(file, tokenizer)
    if len(tokenizer) > (known := config.get_text_config().vocab_size):
        raise ModelError(f"{file.path}: transformers' tokenizer has {len(tokenizer)} tokens, the model knows {known}")


def _require_all_weights(file: GgufFile, config: "PreTrainedConfig", folder: Path) -> None:
    """Refuse a file with weights that the model did not take: it would compute something else.

    Blocks behind the last layer predict further tokens and are no part of the model itself; where it shares its
    embeddings, a copy of them as output is none either.
    """
    text = config.get_text_config()
    values = {
        name: count
        for name, count in file.values.items()
        if _block(name) < text.num_hidden_layers and not (name == "output.weight" and config.tie_word_embeddings)
    }
    size = model_size(identify_model(str(folder), None))
    written = size.parameters if size is not None else 0
    if (left := sum(values.values()) - written) != 0:
        named = [name for name, count in values.items() if count == left]
        raise ModelError(
            f"{file.path}: it holds {sum(values.values()):,} values, of which transformers read {written:,}; what is "
            f"left out{f' (perhaps {named[0]})' if named else ''} would change what the model computes; "
            "take the original model"
        )


def _block(name: str) -> int:
    """The layer that a tensor belongs to; -1 for those of none."""
    kind, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    return int(number) if kind == "blk" and number.isdigit() else -1


def _require_same_ends(file: GgufFile, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Refuse a tokenizer whose tokens at the ends of a text are not those of the file, or not where it wants them."""
    found = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id}
    for name, token in found.items():
        if file.token(name) is not None and file.token(name) != token:
            raise ModelError(
                f"{file.path}: tokenizer.ggml.{name}_token_id is {file.token(name)}, but transformers' tokenizer has "
                f"{token}; take the original model"
            )
    plain = tokenizer("12 pens", add_special_tokens=False)["input_ids"]
    begin, end = ([file.token(name)] if file.adds(name) else [] for name in ("bos", "eos"))
    ids = tokenizer("12 pens")["input_ids"]
    if ids != [*begin, *plain, *end]:
        raise ModelError(
            f"{file.path}: a text's tokens begin with {begin} and end with {end} by tokenizer.ggml.add_bos_token and "
            f"add_eos_token, but transformers' tokenizer makes {ids} of {plain}; take the original model"
        )
    spaced = file.metadata.get("tokenizer.ggml.add_space_prefix")
    first = str(tokenizer.convert_ids_to_tokens(plain[0]))
    if file.metadata.get("tokenizer.ggml.model") == "llama" and spaced not in (None, first.startswith(BLANK)):
        raise ModelError(
            f"{file.path}: tokenizer.ggml.add_space_prefix is {str(spaced).lower()}, but transformers' tokenizer "
            f"begins a text with {first!r}; take the original model"
        )
