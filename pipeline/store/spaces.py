"""The spaces of a store as a user meets them: listed, or found by a path or by the beginning of a name."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from cache.exchange.addresses import shown
from cache.reader import AttentionStore
from cache.soft_labels.figures import SoftLabelFigures, soft_label_figures
from cache.soft_labels.reader import SoftLabelStore
from cache.spaces import KINDS, SPEC_FILE, Kind, Space, UnreadableSpace, list_spaces, space_folders
from data.errors import ConfigError, DamagedCacheError, MismatchError
from pipeline.console.tables import print_json, print_rows
from pipeline.store.tables import space_row
from stages.figures.targets import TargetFigures, target_figures
from stages.settings import ObjectiveSettings


def list_store(store: Path, *, as_json: bool) -> None:
    """Print a line for each space; those that cannot be opened are an error, with what helps, once all are printed."""
    spaces = list_spaces(store)
    if as_json:
        print_json(spaces)
    else:
        problems = any(isinstance(space, UnreadableSpace) for space in spaces)
        columns = ("space", "records", "dropped", "parts", "size", *([""] if problems else []))
        print_rows(columns, map(space_row, spaces))
    raise_together([_unreadable(space, store) for space in spaces if isinstance(space, UnreadableSpace)])


def raise_together(errors: Sequence[DamagedCacheError | MismatchError]) -> None:
    """Raise one error for all spaces that could not be opened, if there are any: damage counts for more than age."""
    if errors:
        damaged = any(isinstance(error, DamagedCacheError) for error in errors)
        raise (DamagedCacheError if damaged else MismatchError)("\n".join(map(str, errors)))


def _unreadable(space: UnreadableSpace, store: Path) -> DamagedCacheError | MismatchError:
    """What is wrong with a space, and what helps."""
    name = f"{space.kind}/{space.path.name}"
    if not space.damaged:
        return MismatchError(f"{name}: {space.problem}")
    command = shlex.join(["molsaki", "cache", "verify", name, "--store", str(store)])
    helps = f"`{command}` lists all damage and, with --repair, keeps what is sound"
    return DamagedCacheError(f"{name}: damaged: {space.problem}; {helps}")


def find_space(wanted: str, store: Path) -> Space:
    """The space at the path `wanted`, or the only one in `store` whose name or `kind/name` begins so."""
    return Space.open(find_folder(wanted, store))


def default_targets(space: Space) -> TargetFigures | SoftLabelFigures | None:
    """What students would learn from a space; None where nothing in it is readable, and for rationales.

    Of attention targets of all records, by the defaults of `objective`; of soft labels what its rows hold.
    """
    try:
        if space.kind == "attention":
            attention = AttentionStore(space)
            return target_figures(attention, tuple(attention), ObjectiveSettings()) if attention else None
        labels = SoftLabelStore(space) if space.kind == "soft-labels" else None
        return soft_label_figures(labels) if labels else None
    except DamagedCacheError as error:
        click.echo(f"warning: targets: {error}", err=True)
        return None


def find_folder(wanted: str, store: Path, *, kinds: Sequence[Kind] = KINDS) -> Path:
    """The same without opening it: its folder, however damaged what lies in it may be; by name only of `kinds`."""
    if "://" in wanted:
        raise ConfigError(
            f"{shown(wanted)}: lies elsewhere; `molsaki cache import` checks it and takes it into a store"
        )
    folder = Path(wanted)
    if (folder / SPEC_FILE).is_file() or (folder / "parts").is_dir():
        return folder
    names = {f"{folder.parent.name}/{folder.name}": folder for folder in space_folders(store, kinds=kinds)}
    found = [name for name in names if name.startswith(wanted) or name.partition("/")[2].startswith(wanted)]
    if not found:
        raise ConfigError(f"space {wanted}: no folder of that name, none in {store} begins so; see: molsaki cache ls")
    if len(found) > 1:
        raise ConfigError(f"space {wanted}: could be {' or '.join(found)}; write more of the name")
    return names[found[0]]
