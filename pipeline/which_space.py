"""Which attention a command is to look at: what its user has typed enters, an open store with the records meant leaves.

For the commands that only look (`plot`, `cache show --record`): each takes a configuration file or a run's folder, a
space by its path or by the beginning of its name in a store, a tar file, or an address that fsspec knows. A
configuration means the records of its run, however many others share the space; everything else means all records. No
model is loaded; which space is a configuration's follows from the identity of its teacher, as in `molsaki status`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache import open_attention
from cache.places import is_elsewhere
from cache.reader import AttentionStore
from data.errors import ConfigError, MissingRecordsError
from pipeline.config import Config, default_store, load_config
from pipeline.inputs import Inputs
from pipeline.matrix import Matrix, load_matrix
from pipeline.spaces import find_folder
from pipeline.teacher_stages import AttentionStage, RationaleStage
from pipeline.work import CONFIGURATION

CONFIGURATIONS = (".yaml", ".yml")
SHOWN = 3
"""Keys that a message about them names at most."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What is looked at: `keys` are the records meant, all of them stored.

    Of a configuration also the `config` itself and the `folder` of its run, which may not exist; of a matrix whose
    points share their records, `config` is that of one point, and no folder. `missing` counts records of the run that
    are not stored.
    """

    attention: AttentionStore
    keys: tuple[str, ...]
    config: Config | None = None
    folder: Path | None = None
    missing: int = 0

    def key(self, beginning: str) -> str:
        """The only key that begins so; raises `ConfigError` where there is none, or more than one."""
        found = [key for key in self.keys if key.startswith(beginning.lower())]
        if len(found) == 1:
            return found[0]
        some = ", ".join(key[: max(16, len(beginning) + 4)] for key in (found or self.keys)[:SHOWN])
        if found:
            raise ConfigError(f"record {beginning}: {len(found):,} keys begin so ({some}, …); write more of it")
        raise ConfigError(
            f"record {beginning}: none of {len(self.keys):,} keys begins so; those there are begin {some}, …"
        )


def choose(what: str, *, store: Path | None = None, runs: Path = Path("runs"), overrides: Sequence[str] = ()) -> Chosen:
    """Open what CONFIG or SPACE names; `store` is where names of spaces are looked up, `runs` where runs lie.

    Raises `ConfigError` where nothing is meant by it, `MissingRecordsError` where no record is stored yet, and
    `DamagedCacheError` as opening a store does.
    """
    path = Path(what).expanduser()
    if (path.is_file() and not is_elsewhere(what)) or path.suffix in CONFIGURATIONS:
        return _of_config(path, runs, overrides)
    if (path / CONFIGURATION).is_file():
        return _of_config(path / CONFIGURATION, runs, overrides, folder=path)
    if overrides:
        raise ConfigError(f"--set {overrides[0]}: goes with a configuration, and {what} is a space")
    folder = what if is_elsewhere(what) else find_folder(what, store or default_store(), kinds=("attention",))
    attention = open_attention(folder)
    return Chosen(attention=attention, keys=_some(tuple(attention), attention))


def _some(keys: tuple[str, ...], attention: AttentionStore) -> tuple[str, ...]:
    if not keys:
        raise MissingRecordsError(f"{attention.space.path}: no attention yet; `molsaki attention CONFIG` computes it")
    return keys


def _of_config(path: Path, runs: Path, overrides: Sequence[str], folder: Path | None = None) -> Chosen:
    """The records of a run, which may lie in another folder than it would be given, or of a matrix's only ones."""
    matrix = load_matrix(path, overrides)
    if matrix is None:
        config = load_config(path, overrides)
        if path.name == CONFIGURATION and path.resolve().parent.name == config.name:
            folder = path.parent
        folder = folder or runs / config.name
    else:
        config, folder = _only_teaching(matrix, runs), None
    inputs = Inputs(config)
    stage = AttentionStage(inputs, RationaleStage(inputs))
    if not stage.begun:
        beside = stage.plan().detail
        raise MissingRecordsError(
            f"{path}: no attention is stored for it, {stage.path} is not there; `molsaki attention {path}` computes it"
            + (f"\n{beside}" if beside else "")
        )
    attention = stage.open()
    wanted = [example.key for example in stage.selection.examples]
    keys = tuple(key for key in wanted if key in attention)
    unusable = sum(key in attention.dropped for key in wanted if key not in attention)
    return Chosen(
        attention=attention,
        keys=_some(keys, attention),
        config=config,
        folder=folder,
        missing=len(wanted) - len(keys) - unusable,
    )


def _only_teaching(matrix: Matrix, runs: Path) -> Config:
    """The configuration of a point, where all of them ask for the same of stage one."""
    first, *others = matrix.points
    for point in others:
        ours, theirs = _of_stage_one(first.config), _of_stage_one(point.config)
        if differing := [name for name in ours if ours[name] != theirs[name]]:
            raise ConfigError(
                f"{matrix.name}: its points differ in {differing[0]}, so that they do not share their attention; name "
                f"the folder of one of them, such as {runs / matrix.name / point.name}"
            )
    return first.config


def _of_stage_one(config: Config) -> Mapping[str, object]:
    """What the records of a run and their attention depend on."""
    return {
        "data.train": config.data.train,
        "teacher": config.teacher,
        "rationales": config.rationales,
        "attention": config.attention,
    }
