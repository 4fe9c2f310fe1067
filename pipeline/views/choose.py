"""Which attention a command is to look at: what its user has typed enters, an open store with the records meant leaves.

For the commands that only look (`plot`, `explore`, `cache show --record`): each takes a configuration file or a run's
folder, a space by its path or by the beginning of its name in a store, a tar file, or an address that fsspec knows. A
configuration means the records of its run, however many others share the space; everything else means all records. No
model is loaded; which space is a configuration's follows from the identity of its teacher, as in `molsaki status`.

A matrix means the points whose attention lies in one space, and the records of all of these. Where points have several
spaces (other rules, another teacher), nothing of two is put together: it is the first in which something is stored, and
`notes` say so, and which folders name the others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cache import open_attention
from cache.exchange.addresses import is_elsewhere, shown
from cache.reader import AttentionStore
from cache.spaces import default_store
from data.errors import ConfigError, MissingRecordsError
from data.records import Rationale
from pipeline.config.matrix import Matrix, load_matrix
from pipeline.config.schema import Config
from pipeline.results.folder import RunFolder
from pipeline.results.scores import short_names
from pipeline.run.points import PointStages, Run, look
from pipeline.run.teacher import AttentionStage
from pipeline.store.spaces import find_folder
from stages.attention.selected import keys_of
from stages.settings import AlignmentSettings
from stages.student.objective import objective_of

CONFIGURATIONS = (".yaml", ".yml")
SHOWN = 3
"""Keys, or points, that a message about them names at most."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What is looked at: `keys` are the records meant, all of them stored.

    Of a configuration also the `config` itself, the `folder` of its run, which may not exist, and the `rationales` that
    the records are made of. `runs` are the folders of all runs that have these records, by name: that one; or of a
    `matrix` (its name) the points meant, by what tables show of their names, and then `config` is that of the first of
    them that learns from attention, and `folder` that of the matrix. `missing` counts records of the runs that are not
    stored, and `notes` are what the user should know of the choice.
    """

    attention: AttentionStore
    keys: tuple[str, ...]
    config: Config | None = None
    folder: Path | None = None
    runs: Mapping[str, Path] = field(default_factory=dict)
    rationales: tuple[Rationale, ...] = ()
    missing: int = 0
    notes: tuple[str, ...] = ()
    matrix: str | None = None

    @property
    def name(self) -> str:
        """The run, the matrix, or the space."""
        if self.config is None:
            return self.attention.space.path.name
        return self.matrix or self.config.name

    @property
    def tau(self) -> float:
        """Temperature of Eq. 4."""
        return AlignmentSettings().tau_teacher if self.config is None else _tau(self.config)

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
    if (config := RunFolder(path).config).is_file():
        return _of_config(config, runs, overrides, folder=path)
    if overrides:
        raise ConfigError(f"--set {overrides[0]}: goes with a configuration, and {shown(what)} is a space")
    folder = what if is_elsewhere(what) else find_folder(what, store or default_store(), kinds=("attention",))
    attention = open_attention(folder)
    return Chosen(attention=attention, keys=_some(tuple(attention), attention))


def _some(keys: tuple[str, ...], attention: AttentionStore) -> tuple[str, ...]:
    if not keys:
        raise MissingRecordsError(f"{attention.space.path}: no attention yet; `molsaki attention CONFIG` computes it")
    return keys


def _of_config(path: Path, runs: Path, overrides: Sequence[str], folder: Path | None = None) -> Chosen:
    """The records of a run, which may lie in another folder than it would be given.

    Of a matrix they are those in the first space that has some. Points whose records cannot be had do not stand in the
    way of others; where that is all of them, what the first has to say is raised.
    """
    matrix = load_matrix(path, overrides)
    if path == RunFolder(path.parent).config and path.resolve().parent.name == matrix.name:
        folder = path.parent
    run = Run(matrix=matrix, folder=folder or runs / matrix.name)
    spaces: dict[Path, list[PointStages]] = {}
    for stages in look(run):
        spaces.setdefault(stages.attention.path, []).append(stages)
    names = [one.name for one in run.points]
    short = dict(zip(names, names, strict=True)) if run.single else short_names(names)
    reasons: list[ConfigError | MissingRecordsError] = []
    for points in spaces.values():
        folders = {short[stages.point.name]: stages.point.folder for stages in points}
        first = next((stages for stages in points if "attention" in stages.point.stages), points[0])
        try:
            chosen = _of_stages(path, [one.attention for one in points], first.point.config, run.folder, folders)
        except (ConfigError, MissingRecordsError) as error:
            reasons.append(error)
            continue
        if run.single:
            return chosen
        others = [found[0].point.folder for found in spaces.values() if found is not points]
        return replace(chosen, matrix=matrix.name, notes=tuple(_notes(matrix, points, first, others)))
    raise reasons[0]


def _notes(matrix: Matrix, points: Sequence[PointStages], first: PointStages, others: Sequence[Path]) -> Iterator[str]:
    """What is shown of a matrix whose points differ; `others` are the folders of a point of each other space."""
    if others:
        more = f" and {len(points) - 1} more" if len(points) > 1 else ""
        yield (
            f"{matrix.name}: teacher or rules differ between its points, whose attention lies in {len(others) + 1} "
            f"spaces; this is that of {points[0].point.name}{more}. For another, name the folder of a point, as "
            + " or ".join(map(str, others[:SHOWN]))
        )
    taus = {_tau(each.point.config) for each in points if "attention" in each.point.stages}
    if len(taus) > 1:
        yield (
            f"{matrix.name}: objective.tau_teacher differs between its points; layers of the teacher are mixed as in "
            f"{first.point.name}, with {_tau(first.point.config):g}"
        )


def _tau(config: Config) -> float:
    """Temperature of the teacher's layer weights, also where students learn from no attention."""
    return (objective_of(config.objective).attention or AlignmentSettings()).tau_teacher


def _of_stages(
    path: Path, stages: Sequence[AttentionStage], config: Config, folder: Path, runs: Mapping[str, Path]
) -> Chosen:
    """The records of one or several stages whose attention lies in one space."""
    stage = stages[0]
    if not stage.begun:
        beside = stage.plan().detail
        raise MissingRecordsError(
            f"{path}: no attention is stored for it, {stage.path} is not there; `molsaki attention {path}` computes it"
            + (f"\n{beside}" if beside else "")
        )
    attention = stage.open()
    distinct = list(dict.fromkeys(stages))  # points of a matrix share what they agree on
    wanted = list(dict.fromkeys(key for one in distinct for key in keys_of(one.selection.examples)))
    keys = tuple(key for key in wanted if key in attention)
    unusable = sum(key in attention.dropped for key in wanted if key not in attention)
    return Chosen(
        attention=attention,
        keys=_some(keys, attention),
        config=config,
        folder=folder,
        runs=runs,
        rationales=tuple(dict.fromkeys(rationale for one in distinct for rationale in one.rationales.rationales)),
        missing=len(wanted) - len(keys) - unusable,
    )
