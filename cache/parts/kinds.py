"""Kinds of spaces whose parts are arrays: which layout a part has, and how its records are judged."""

from collections.abc import Collection, Mapping

from cache import examine as attention
from cache.commits import Commit
from cache.layout import ATTENTION, PartLayout
from cache.parts.examine import Examined, Reading
from cache.rounding import kept_bits
from cache.soft_labels import examine as soft_labels
from cache.soft_labels.layout import layout_of, rows_spec_of
from cache.spaces import Space


def part_layout(space: Space, commit: Commit) -> PartLayout:
    """Return the layout of a committed part of arrays."""
    if space.kind == "attention":
        return ATTENTION
    return layout_of(rows_spec_of(space, commit), commit.files)


def examine_part(
    space: Space,
    commit: Commit,
    counts: Mapping[str, int],
    *,
    broken: Collection[str] = (),
    rebuilt: Collection[str] = (),
) -> Examined:
    """Decode a part with these counts and judge each of its records; `broken` and `rebuilt` as in `Reading`."""
    layout = part_layout(space, commit)
    reading = Reading(
        folder=space.part_path(commit),
        counts=counts,
        layout=layout,
        present=layout.present(commit.files),
        broken=broken,
        rebuilt=rebuilt,
    )
    if space.kind == "attention":
        return attention.examine(reading, kept_bits(space.spec))
    return soft_labels.examine(reading, rows_spec_of(space, commit))
