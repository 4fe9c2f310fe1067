"""Finding the space that a user means by a path or by the beginning of its name."""

from pathlib import Path

from cache.spaces import SPEC_FILE, Space, list_spaces
from data.errors import ConfigError


def find_space(wanted: str, store: Path) -> Space:
    """The space at the path `wanted`, or the only one in `store` whose name or `kind/name` begins so."""
    if (Path(wanted) / SPEC_FILE).is_file():
        return Space.open(wanted)
    names = {f"{space.kind}/{space.path.name}": space.path for space in list_spaces(store)}
    found = [name for name in names if name.startswith(wanted) or name.partition("/")[2].startswith(wanted)]
    if not found:
        raise ConfigError(f"space {wanted}: no folder of that name, none in {store} begins so; see: molsaki cache ls")
    if len(found) > 1:
        raise ConfigError(f"space {wanted}: could be {' or '.join(found)}; write more of the name")
    return Space.open(names[found[0]])
