"""What things take on disk and in memory, told from files and configurations without loading anything.

In: the commits of a space, a model's folder. Out: sizes. Of a model only `config.json` and the headers of its
safetensors are read; where the weights are not on this machine, their number follows from the configuration. No torch.
"""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.commits import Commit
from data.errors import DataError
from stages.models.identity import WEIGHTS, ModelIdentity

LONGEST_HEADER = 1 << 27


@dataclass(frozen=True, kw_only=True)
class PartSizes:
    """What parts of attention take: a share of the float16 values, bytes a record beside them, and bytes a part."""

    ratio: float
    beside: float
    part: float

    def of(self, values: float, records: float, parts: float) -> int:
        """Bytes of so many values of attention in so many records and parts."""
        return round(2 * values * self.ratio + self.beside * records + self.part * parts)


def part_sizes(space: Path, commits: Sequence[Commit]) -> PartSizes | None:
    """Measure the parts of a space by the sizes in their commits; None where there are none."""
    parts = [commit for commit in commits if commit.part is not None and commit.counts["records"]]
    if not parts:
        return None
    values = sum(2 * commit.counts["cells"] * commit.counts["layers"] for commit in parts)
    files = [(name, entry.size) for commit in parts for name, entry in commit.files.items()]
    attention = sum(size for name, size in files if name.startswith("attention/c/"))
    metadata = sum(size for name, size in files if name.endswith("zarr.json"))
    everything = sum(commit_bytes(space, commit) for commit in parts)
    fixed = everything - sum(commit.bytes for commit in parts) + metadata
    records = sum(commit.counts["records"] for commit in parts)
    return PartSizes(
        ratio=attention / values, beside=(everything - fixed - attention) / records, part=fixed / len(parts)
    )


def commit_bytes(space: Path, commit: Commit) -> int:
    """Size of a part and of the file that makes it visible."""
    return commit.bytes + (space / "commits" / f"{commit.index:08d}.json").stat().st_size


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Size of a model: its weights, by number and as they are stored, and the shape of what it computes."""

    parameters: int
    layers: int
    width: int
    vocabulary: int
    counted: str
    """How its weights were counted."""


def model_size(identity: ModelIdentity) -> ModelSize | None:
    """Say how large a model is; None where its configuration does not tell its shape."""
    folder = model_folder(identity)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'config.json'}: cannot be read ({error})") from error
    config = config.get("text_config") or config
    layers, width, vocabulary = (_number(config, *names) for names in SHAPE)
    if not (layers and width and vocabulary):
        return None
    files = sorted(folder.glob(WEIGHTS))
    stored = [_stored_parameters(file) for file in files]
    known = sum(count for count in stored if count is not None) if files and None not in stored else 0
    return ModelSize(
        parameters=known or _parameters(config, layers, width, vocabulary),
        layers=layers,
        width=width,
        vocabulary=vocabulary,
        counted="its safetensors" if known else "its configuration, as in Llama",
    )


SHAPE = (("num_hidden_layers", "n_layer"), ("hidden_size", "n_embd"), ("vocab_size",))


def model_folder(identity: ModelIdentity) -> Path:
    """The folder with a model's files, of a hub model that of the last download."""
    if identity.source == "folder":
        return Path(identity.path)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(identity.path, revision=identity.revision, local_files_only=True))


def _stored_parameters(file: Path) -> int | None:
    """Number of values in a safetensors file by its header; None where it is no such file."""
    with file.open("rb") as opened:
        head = opened.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 0 < length <= LONGEST_HEADER:
            return None
        try:
            header = json.loads(opened.read(length))
        except ValueError:
            return None
    tensors = (tensor for name, tensor in header.items() if name != "__metadata__")
    return int(sum(math.prod(tensor["shape"]) for tensor in tensors))


def _parameters(config: Mapping[str, Any], layers: int, width: int, vocabulary: int) -> int:
    """Weights of a Llama of this shape."""
    heads = _number(config, "num_attention_heads", "n_head") or 1
    groups = (_number(config, "num_key_value_heads") or heads) / heads
    inner = _number(config, "intermediate_size", "n_inner") or 4 * width
    embeddings = vocabulary * width * (1 if config.get("tie_word_embeddings") else 2)
    return round(embeddings + layers * (width * width * (2 + 2 * groups) + 3 * width * inner))


def _number(config: Mapping[str, Any], *names: str) -> int:
    return next((int(config[name]) for name in names if isinstance(config.get(name), int)), 0)
