"""Which model is meant, exactly: a hub id or a local folder goes in, an identity that can be fingerprinted comes out.

A branch on the hub moves and a local folder is overwritten, so neither name says what was computed with. A hub model
is therefore resolved to its commit and a local folder to the hash of its weights and configuration; the tokenizer is
hashed by itself. Nothing here loads a model: no torch, and the hub's client only when a hub id is given.
"""

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cache.fingerprints import JSON, hash_folder
from data.errors import ConfigError
from stages.runtime.kept_hashes import kept_hash
from stages.settings import TeacherSettings

WEIGHTS = "*.safetensors"
CONFIG_FILES = ("config.json", "generation_config.json", "model.safetensors.index.json")
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
    "vocab.*",
    "merges.txt",
    "spiece.model",
)
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""Files of which at least one makes a folder's tokenizer usable."""
CODE = "*.py"
GGUF = ".gguf"


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What a model is: enough to load it again and to tell it from every other one.

    `path` is the hub id or the absolute folder. `revision` is the resolved commit of a hub model, or the SHA-256 over a
    folder's configuration and weights. `tokenizer` is the SHA-256 over the tokenizer's files.
    """

    source: Literal["hub", "folder"]
    path: str
    revision: str
    tokenizer: str

    @property
    def hub_revision(self) -> str | None:
        """The `revision` that `from_pretrained` and vLLM take beside `path`; None for a folder."""
        return self.revision if self.source == "hub" else None

    @property
    def name(self) -> str:
        """The last part of the path, for people."""
        return Path(self.path).name


def identify_model(model: str, revision: str | None, *, weights: bool = True) -> ModelIdentity:
    """Resolve a hub id or local folder; `weights=False` is content with configuration and tokenizer.

    Raises `ConfigError` where there is no such folder, where something is missing in it or it is a GGUF file, and where
    a hub id can neither be looked up nor found among the models downloaded earlier.
    """
    _require_no_gguf(Path(model).expanduser(), weights=weights)
    if model.startswith((".", "/", "~")) or model.count(os.sep) > 1 or Path(model).exists():
        return _identify_folder(Path(model).expanduser(), weights=weights)
    return _identify_hub(model, revision)


def _require_no_gguf(path: Path, *, weights: bool) -> None:
    """Refuse a GGUF file, and a folder that holds one in place of a model, with the command that converts it."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() == GGUF)
        found = files if files and _missing(path, weights=weights) else []
    else:
        found = [path] if path.suffix.lower() == GGUF and (path.is_file() or len(path.parts) != 2) else []
    if found:
        reason = "is a GGUF file" if found == [path] else "holds a GGUF file, and no model that is read as it is"
        file = shlex.quote(str(found[0]))
        raise ConfigError(f"model {path}: it {reason}; convert it once: molsaki convert-gguf {file} FOLDER")


def _identify_folder(folder: Path, *, weights: bool) -> ModelIdentity:
    if not folder.is_dir():
        found = "it is a file" if folder.exists() else "there is none"
        raise ConfigError(f"model {folder}: expected a folder with config.json, safetensors and tokenizer, but {found}")
    missing = _missing(folder, weights=weights)
    if missing:
        raise ConfigError(f"model {folder}: the folder lacks {' and '.join(missing)}; save_pretrained writes them")
    return ModelIdentity(
        source="folder",
        path=str(folder.resolve()),
        revision=hash_folder(folder, (*CONFIG_FILES, WEIGHTS), kept_hash),
        tokenizer=hash_folder(folder, TOKENIZER, kept_hash),
    )


def _missing(folder: Path, *, weights: bool) -> list[str]:
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if weights and not any(folder.glob(WEIGHTS)):
        missing.append(f"weights ({WEIGHTS})")
    if not any((folder / name).is_file() for name in VOCABULARIES):
        missing.append("a tokenizer (tokenizer.json or its vocabulary)")
    return missing


def _identify_hub(model: str, revision: str | None) -> ModelIdentity:
    folder = _download_small_files(model, revision)
    missing = _missing(folder, weights=False)
    if missing:
        raise ConfigError(f"model {model}: the hub's repository lacks {' and '.join(missing)}")
    return ModelIdentity(
        source="hub", path=model, revision=folder.name, tokenizer=hash_folder(folder, TOKENIZER, kept_hash)
    )


def tokenizer_folder(identity: ModelIdentity) -> Path:
    """Where the files of a model's tokenizer lie; those of a hub model are fetched if they are not there any more."""
    if identity.source == "folder":
        return Path(identity.path)
    return _download_small_files(identity.path, identity.revision)


def _download_small_files(model: str, revision: str | None) -> Path:
    """Folder, named by the commit, that holds configuration and tokenizer; only what is new is fetched.

    Without a network it is what `revision` pointed to at the last download.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=[*CONFIG_FILES, *TOKENIZER]))
    except HFValidationError as error:
        raise ConfigError(f"model {model!r}: neither a local folder nor a hub id such as owner/name") from error
    except GatedRepoError as error:
        raise ConfigError(f"model {model}: the hub wants access to be granted first; see `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"model {model}: no such local folder, and no such model on the hub (or no access)"
        ) from error
    except RevisionNotFoundError as error:
        raise ConfigError(f"model {model}: the hub knows no revision {revision!r} of it") from error
    except LocalEntryNotFoundError as error:
        raise ConfigError(
            f"model {model}: no such local folder, the hub cannot be reached, and revision {revision or 'main'!r} was "
            "not downloaded before; name a local folder, or run once where there is a network"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"model {model}: the hub answers with an error ({type(error).__name__}); try again"
        ) from error


def model_fields(identity: ModelIdentity, teacher: TeacherSettings) -> dict[str, JSON]:
    """What a space's spec says of the teacher: which weights, which tokenizer, and its own code where that may run."""
    model = f"{identity.path}@{identity.revision}" if identity.source == "hub" else f"sha256:{identity.revision}"
    return {"model": model, "tokenizer": identity.tokenizer, **_trust(identity, teacher)}


def _trust(identity: ModelIdentity, teacher: TeacherSettings) -> dict[str, JSON]:
    """A model's own code, where it may run; a hub model's commit says which code that is, a folder's files have to."""
    if not teacher.trust_remote_code:
        return {}
    folder = Path(identity.path)
    has_code = identity.source == "folder" and any(folder.glob(CODE))
    return {"trust_remote_code": True, **({"code": hash_folder(folder, (CODE,))} if has_code else {})}


def slug(text: str) -> str:
    """A text as the readable half of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "model"
