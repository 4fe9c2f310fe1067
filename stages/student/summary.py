"""What a student is, in one JSON file beside its weights: `training.json`. Model cards and reports are written from it.

In: what the student was made from, how its training went, and later what it scored. Out: the file, and its content
again. It is handed on with the student, so that models and data are named in it and paths of this machine are not.
Torch is not imported.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cache.durable import replace_file
from cache.fingerprints import JSON
from data.errors import DamagedCacheError
from data.settings import DataSource
from stages.models.identity import ModelIdentity
from stages.settings import StudentSettings, TrainingSettings

SUMMARY = "training.json"
LAYER_WEIGHTS = "layer_weights.parquet"
CHECKPOINTS = "checkpoints"
LOG = "log"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a student is made from; fingerprints are None where it learns from none of that."""

    run: str
    teacher: ModelIdentity
    student: ModelIdentity
    data: tuple[DataSource, ...]
    rationales: str
    sources: tuple[str, ...] = ()
    """Where rationales of several sources are learned from, the fingerprint of each."""
    attention: str | None
    soft_labels: str | None = None
    settings: StudentSettings
    training: TrainingSettings

    def described(self) -> dict[str, Any]:
        """As it stands in the file."""
        sources = [{name: value for name, value in asdict(source).items() if name != "path"} for source in self.data]
        settings = {name: value for name, value in asdict(self.settings).items() if name not in {"model", "revision"}}
        return {
            "run": self.run,
            "teacher": _described(self.teacher),
            "student": {**_described(self.student), **settings},
            "data": sources,
            "rationales": self.rationales,
            **({"sources": list(self.sources)} if len(self.sources) > 1 else {}),
            "attention": self.attention,
            **({"soft_labels": self.soft_labels} if self.soft_labels else {}),
            "training": asdict(self.training),
        }


def write_summary(folder: Path, summary: Mapping[str, JSON]) -> None:
    """Write what a student is, the long log of its training last; its presence means that the student is complete."""
    ordered = {name: value for name, value in summary.items() if name != LOG}
    content = {**ordered, **({LOG: summary[LOG]} if LOG in summary else {})}
    replace_file(folder / SUMMARY, json.dumps(content, indent=1).encode())


def read_summary(folder: Path) -> dict[str, Any] | None:  # a file of ours, of whatever version
    """What the student in `folder` is; None where there is none that is complete.

    Raises `DamagedCacheError` where that does not decode.
    """
    path = folder / SUMMARY
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise damaged_student(path, error) from error


def damaged_student(path: Path, error: Exception) -> DamagedCacheError:
    """For a file beside a student that does not decode."""
    return DamagedCacheError(
        f"{path}: does not decode ({type(error).__name__}: {error}); delete {path.parent} and train again with: "
        "molsaki train CONFIG"
    )


def _described(model: ModelIdentity) -> dict[str, Any]:
    """By its hub id, or by the last part of a folder's path: a path of this machine tells nobody anything."""
    name = model.path if model.source == "hub" else model.name
    return {"model": name, "source": model.source, "revision": model.revision}
