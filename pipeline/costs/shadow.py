"""A place where a stage may run for a sample: it sees all that is stored, and what it writes goes nowhere else.

In: a run. Out: a folder with a store and a run folder of the same shape, made of links to the committed parts, files
of targets and finished students, and the configuration that points there. A stage adds files under new names and
changes none, so the real store stays as it is; the whole folder goes in the end. Why not commit what a sample
computed, although it is the very work: a look at what something costs should change nothing, and parts of a dozen
records would stay in a store that is shared for years.

The folder lies beside the run folders, on the disk that a training run's checkpoints need room on anyway.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.spaces import KINDS, SPEC_FILE
from pipeline.config.schema import Config
from pipeline.run.work import Run


@contextmanager
def shadow_of(run: Run, *, with_students: bool) -> Iterator[Run]:
    """A run like `run` whose store and folder are copies by links; `with_students` also shows its students."""
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".sample-", dir=run.folder.parent) as place:
        folder = Path(place)
        config = run.config
        _shadow_store(config.store, folder / "store")
        shadow = Run(config=_pointing_to(config, folder / "store"), folder=folder / "runs" / config.name)
        shadow.folder.mkdir(parents=True)
        if with_students and (run.folder / "student").is_dir():
            (shadow.folder / "student").symlink_to((run.folder / "student").resolve())
        shadow.save_config()
        yield shadow


def _pointing_to(config: Config, store: Path) -> Config:
    return config.model_copy(update={"store": store.resolve()})


def _shadow_store(store: Path, shadow: Path) -> None:
    for space in (space for kind in KINDS if (store / kind).is_dir() for space in (store / kind).iterdir()):
        if (space / SPEC_FILE).is_file():
            _shadow_space(space, shadow / space.parent.name / space.name)
    _link_all(store / "targets", shadow / "targets")


def _shadow_space(space: Path, shadow: Path) -> None:
    _link_all(space / "parts", shadow / "parts")
    _link_all(space / "commits", shadow / "commits")
    (shadow / SPEC_FILE).write_bytes((space / SPEC_FILE).read_bytes())


def _link_all(folder: Path, shadow: Path) -> None:
    """Links to everything in a folder, which itself is real, so that more can be put beside them."""
    shadow.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir() if folder.is_dir() else ():
        if not path.name.startswith("."):
            (shadow / path.name).symlink_to(path.resolve())
