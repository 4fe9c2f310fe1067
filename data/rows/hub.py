"""Rows of a data set on the Hugging Face hub, or of a local folder in the hub's layout."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from data.errors import ConfigError
from data.rows.row import Row
from data.settings import DataSource


def hub_rows(source: DataSource, usual: str | None) -> Iterator[Row]:
    """The rows of a source; `usual` is the set's own place on the hub, where the source names no other."""
    identifier = source.hub or usual
    if identifier is None:
        raise ConfigError(
            f"data {source.name}: expected path, found none; the hub holds no dependable copy of this set, so name the "
            "file that its authors publish, or a copy in hub: if you trust one"
        )
    hub_id, _, configuration = (identifier, "", "") if Path(identifier).exists() else identifier.partition(":")
    loaded = _load(hub_id, configuration or None, source)
    for number, fields in enumerate(loaded, start=1):
        name = f"{source.name}-{source.split}-{number}"
        where = f"{identifier} ({source.split}), row {number}"
        yield Row(where=where, name=name, dataset=source.name, fields=fields)


def _load(hub_id: str, configuration: str | None, source: DataSource) -> Iterable[Mapping[str, object]]:
    import datasets  # takes a second, and files need none of it

    try:
        loaded: Iterable[Mapping[str, object]] = datasets.load_dataset(
            hub_id, configuration, split=source.split, revision=source.revision
        )
    # The library reports an unreachable hub, an unknown id, revision, configuration or split by any of these.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(f"{error} {error.__cause__ or ''}".split()) or type(error).__name__
        raise ConfigError(
            f"data {source.name}: {hub_id} ({source.split}) could not be loaded from the hub: {reason[:300]}; "
            f"give the file with path: if there is no network"
        ) from error
    return loaded
