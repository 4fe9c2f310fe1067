"""What things take on disk and in memory, told from files and configurations without loading anything.

In: the commits of a space, a model's folder. Out: sizes. Of a model only `config.json` and the headers of its
safetensors are read; where the weights are not on this machine, their number follows from the configuration. No torch.
"""

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.commits import Commit
from data.errors import ConfigError, DataError
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


def model_size(identity: ModelIdentity, kept: int | None = None) -> ModelSize | None:
    """Say how large a model is, or its first `kept` layers; None where its configuration does not tell its shape."""
    folder = model_folder(identity)
    config = _text_config(folder)
    layers, width, vocabulary = (_number(config, *names) for names in SHAPE)
    if not (layers and width and vocabulary):
        return None
    left = layers if kept is None else min(kept, layers)
    files = sorted(folder.glob(WEIGHTS))
    stored = [_stored_parameters(file) for file in files]
    known = {name: count for tensors in stored if tensors for name, count in tensors.items()}
    if None in stored:
        known = {}
    return ModelSize(
        parameters=_of_first_layers(known, layers, left) or _parameters(config, left, width, vocabulary),
        layers=left,
        width=width,
        vocabulary=vocabulary,
        counted="its safetensors" if known else "its configuration, as in Llama",
    )


def require_layers(identity: ModelIdentity, kept: int) -> None:
    """Raise `ConfigError` where a model's configuration says that it has fewer layers than are to be kept."""
    layers = layer_count(identity)
    if layers and kept > layers:
        raise ConfigError(too_many_layers(identity.path, layers, kept))


def layer_count(identity: ModelIdentity) -> int:
    """Decoder layers of a model by its configuration; 0 where that does not say."""
    return _number(_text_config(model_folder(identity)), *SHAPE[0])


def logit_scales(identity: ModelIdentity) -> dict[str, float]:
    """What a model's family does to logits behind the head, by the keys of its configuration."""
    config = _text_config(model_folder(identity))
    found = {name: config.get(name) for name in LOGIT_SCALES}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def require_pair(single: tuple[int, int], teacher: int, student: int) -> None:
    """Raise `ConfigError` where `objective.alignment` names a layer that teacher or student, with so many, lack."""
    for side, layer, layers in zip(("teacher", "student"), single, (teacher, student), strict=True):
        if layer > layers:
            raise ConfigError(
                f"objective.alignment: single: {list(single)} names layer {layer} of the {side}, which has {layers}"
            )


def too_many_layers(model: str, has: int, kept: int) -> str:
    """What is said then."""
    return f"student.layers: expected at most {has}, the layers of {model}, found {kept}"


def _text_config(folder: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'config.json'}: cannot be read ({error})") from error
    text_config: Mapping[str, Any] = config.get("text_config") or config
    return text_config


SHAPE = (
    ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    ("hidden_size", "n_embd"),
    ("vocab_size",),
)
LOGIT_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier", "final_logit_softcapping")
"""Keys of configurations that scale or cap logits; what each does is in `stages.head`."""
NUMBERED = re.compile(r"(?:^|\.)(\d+)\.")
"""A tensor's layer: the first number in its name, with the name of the list of layers before it."""


def model_folder(identity: ModelIdentity) -> Path:
    """The folder with a model's files, of a hub model that of the last download."""
    if identity.source == "folder":
        return Path(identity.path)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(identity.path, revision=identity.revision, local_files_only=True))


def _of_first_layers(tensors: Mapping[str, int], layers: int, kept: int) -> int:
    """Values of a model's tensors without those of layers from `kept` on.

    Its decoder is the list of so many layers that holds most; a vision tower may have a list of its own.
    """
    lists: dict[str, dict[int, int]] = {}
    for name, count in tensors.items():
        if numbered := NUMBERED.search(name):
            of_layer = lists.setdefault(name[: numbered.start()], {})
            of_layer[int(numbered[1])] = of_layer.get(int(numbered[1]), 0) + count
    decoder: Mapping[int, int] = max((one for one in lists.values() if len(one) == layers), key=_total, default={})
    return _total(tensors) - sum(count for layer, count in decoder.items() if layer >= kept)


def _total(counts: Mapping[Any, int]) -> int:
    return sum(counts.values())


def _stored_parameters(file: Path) -> dict[str, int] | None:
    """Number of values of each tensor in a safetensors file by its header; None where it is no such file."""
    with file.open("rb") as opened:
        head = opened.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 0 < length <= LONGEST_HEADER:
            return None
        try:
            header = json.loads(opened.read(length))
        except ValueError:
            return None
    return {name: math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}


def _parameters(config: Mapping[str, Any], layers: int, width: int, vocabulary: int) -> int:
    """Weights of a Llama of this shape."""
    heads = _number(config, "num_attention_heads", "n_head") or 1
    groups = (_number(config, "num_key_value_heads") or heads) / heads
    inner = _number(config, "intermediate_size", "n_inner") or 4 * width
    embeddings = vocabulary * width * (1 if config.get("tie_word_embeddings") else 2)
    return round(embeddings + layers * (width * width * (2 + 2 * groups) + 3 * width * inner))


def _number(config: Mapping[str, Any], *names: str) -> int:
    return next((int(config[name]) for name in names if isinstance(config.get(name), int)), 0)
