"""Whether two models have the same tokens by the same ids: a model enters, a hash of its vocabulary leaves.

Rows of soft labels are about ids. Two tokenizers whose files differ may well have one vocabulary: with another chat
template, other tokens added around a text, or another normaliser, ids mean the same. So the hash is over every token
with its id, added ones among them, and over which of them are special, and over nothing else; which of them ends a text
is no part of it.

tokenizer.json says all of it, unless the files beside it name tokens that it does not have, to which transformers gives
ids when it loads them; then, and where there is no such file, transformers is asked. What was found is kept by the hash
of the tokenizer's files, which are up to some ten megabytes of JSON:

    <user cache>/hashes/vocabulary-<first 32 digits of that hash>.json
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cache.fingerprints import JSON, fingerprint, hash_folder
from cache.spaces import default_store
from data.errors import ConfigError, first_line
from stages.models.identity import TOKENIZER, ModelIdentity, tokenizer_folder
from stages.models.tokenizer import load_tokenizer
from stages.runtime.kept_hashes import kept_hash, read_kept, write_kept

log = logging.getLogger(__name__)

LEAST = 10_000
"""Tokens from which a vocabulary is worth a file of its own."""
RULE = 1
"""Raised when the same files get another hash."""
NAMING = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Files that may name tokens beside tokenizer.json."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """`hash`, 64 hex digits, is equal for equal vocabularies; `size` is one more than the largest id."""

    hash: str
    size: int


def vocabulary_hash(model: Path | ModelIdentity) -> str:
    """The hash of a model's vocabulary, of a folder or of a model that was identified; see `vocabulary_of`."""
    return vocabulary_of(model).hash


def vocabulary_of(model: Path | ModelIdentity) -> Vocabulary:
    """The vocabulary of a model; raises `ConfigError` for a tokenizer that cannot be read."""
    if isinstance(model, ModelIdentity):
        return _kept(model, model.tokenizer)
    return _kept(model, hash_folder(model, TOKENIZER, kept_hash))


def require_one_vocabulary(student: ModelIdentity, teachers: str) -> None:
    """Raise `ConfigError` where a student has another vocabulary than that with the hash of the teacher's."""
    own = vocabulary_of(student).hash
    if own != teachers:
        raise ConfigError(
            f"objective.terms.soft_labels.match: tokens compares distributions over one vocabulary, but that of "
            f"{student.name} ({own[:12]}…) is not the teacher's ({teachers[:12]}…); `match: text` compares pieces of "
            "text, for any two tokenizers"
        )


@lru_cache(maxsize=64)
def _kept(model: Path | ModelIdentity, files: str) -> Vocabulary:
    place = default_store() / "hashes" / f"vocabulary-{files[:32]}.json"
    found = _read_kept(place, files)
    if found is None:
        found = _read(model if isinstance(model, Path) else tokenizer_folder(model))
        if found.size >= LEAST:
            write_kept(place, {"files": files, "rule": RULE, "vocabulary": found.hash, "size": found.size})
    return found


def _read_kept(place: Path, files: str) -> Vocabulary | None:
    kept = read_kept(place)
    if kept.get("files") != files or kept.get("rule") != RULE:
        return None
    found, size = kept.get("vocabulary"), kept.get("size")
    if not isinstance(found, str) or len(found) != len(files) or not isinstance(size, int):
        return None
    return Vocabulary(hash=found, size=size)


def _read(folder: Path) -> Vocabulary:
    return _vocabulary(*(_from_json(folder) or _from_transformers(folder)))


def _vocabulary(ids: Mapping[str, int], special: set[str]) -> Vocabulary:
    content: JSON = {"tokens": sorted(ids.items()), "special": sorted(special & ids.keys())}
    return Vocabulary(hash=fingerprint(content), size=max(ids.values(), default=-1) + 1)


def _from_json(folder: Path) -> tuple[Mapping[str, int], set[str]] | None:
    """Ids of all tokens, and the special ones; None where tokenizer.json is not all there is to know."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        listed = content["model"]["vocab"]
        # Unigram models list pieces with their scores; a piece's place is its id.
        ids = dict(listed) if isinstance(listed, dict) else {piece: place for place, (piece, _) in enumerate(listed)}
        added = content["added_tokens"]
        ids |= {token["content"]: token["id"] for token in added}
        special = {token["content"] for token in added if token["special"]}
        named = [token for name in NAMING for token in _named(folder / name)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: its vocabulary cannot be read ({first_line(error)})") from error
    if any(token not in ids for token, _ in named):
        return None
    return ids, special | {token for token, is_special in named if is_special}


def _named(path: Path) -> Iterator[tuple[str, bool]]:
    """The tokens that a file beside tokenizer.json names, each with whether that makes it a special one."""
    if not path.is_file():
        return
    for name, value in json.loads(path.read_bytes()).items():
        if path.name == "added_tokens.json":
            yield name, False
        elif name == "added_tokens_decoder":
            yield from ((token["content"], bool(token.get("special"))) for token in value.values())
        elif name.endswith("_token"):
            yield from _special([value])
        elif name.endswith("_special_tokens") and value:
            yield from _special(value.values() if isinstance(value, dict) else value)


def _special(values: Iterable[object]) -> Iterator[tuple[str, bool]]:
    """Those of the values that are tokens: texts, or objects with one; others are settings."""
    for value in values:
        token = value.get("content") if isinstance(value, dict) else value
        if isinstance(token, str):
            yield token, True


def _from_transformers(folder: Path) -> tuple[Mapping[str, int], set[str]]:
    tokenizer = load_tokenizer(str(folder), None)
    special = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tokenizer.get_vocab(), special
