"""Finding the space that a user means by a path or by the beginning of its name."""

from pathlib import Path

from cache.spaces import KINDS, SPEC_FILE, Space
from data.errors import ConfigError


def find_space(wanted: str, store: Path) -> Space:
    """The space at the path `wanted`, or the only one in `store` whose name or `kind/name` begins so."""
    return Space.open(find_folder(wanted, store))


def find_folder(wanted: str, store: Path) -> Path:
    """The same without opening it: its folder, however damaged what lies in it may be."""
    if _looks_like_a_space(Path(wanted)):
        return Path(wanted)
    names = {f"{folder.parent.name}/{folder.name}": folder for folder in space_folders(store)}
    found = [name for name in names if name.startswith(wanted) or name.partition("/")[2].startswith(wanted)]
    if not found:
        raise ConfigError(f"space {wanted}: no folder of that name, none in {store} begins so; see: molsaki cache ls")
    if len(found) > 1:
        raise ConfigError(f"space {wanted}: could be {' or '.join(found)}; write more of the name")
    return names[found[0]]


def space_folders(store: Path) -> list[Path]:
    """The folders of all spaces below `store`, by kind and name."""
    folders = (folder for kind in KINDS if (store / kind).is_dir() for folder in sorted((store / kind).iterdir()))
    return [folder for folder in folders if _looks_like_a_space(folder)]


def _looks_like_a_space(folder: Path) -> bool:
    return (folder / SPEC_FILE).is_file() or (folder / "parts").is_dir()
