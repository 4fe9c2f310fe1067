"""The space that a configuration misses by least: a spec for which nothing is stored enters, its neighbour leaves.

A changed revision or step rule leads to another space, and rightly so; but whoever believed that the GPU days were
spent already should hear of it before they are spent again, with the fields that differ.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.fingerprints import Difference, Spec, differences
from cache.spaces import Kind, Space, SpaceSummary, is_space, list_spaces, space_path

MOST_DIFFERENCES = 3
"""A space that differs in more fields was made for something else."""
HASH = re.compile(r"[0-9a-f]{24,}")
HASH_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A space with records, and the fields in which its spec (theirs) differs from the one looked for (ours)."""

    space: SpaceSummary
    differences: Sequence[Difference]

    def line(self) -> str:
        """Say it in one line, with hashes shortened."""
        found = "; ".join(f"{one.field} ours {one.ours}, theirs {one.theirs}" for one in self.differences)
        fields = HASH.sub(lambda digits: f"{digits[0][:HASH_DIGITS]}…", found)
        name = f"{self.space.kind}/{self.space.path.name}"
        return f"nothing stored for this; nearest is {name} ({self.space.records:,} records): {fields}"


def neighbour(store: Path, kind: Kind, slug: str, spec: Spec) -> Neighbour | None:
    """Return the space below `store` that differs from `spec` in the fewest fields, of those the one with most records.

    None where `spec` has a space with commits of its own, and where no space with records is near. Spaces that cannot
    be opened are passed over: `molsaki cache ls` lists them, and they are not what this configuration asks for.
    """
    own = space_path(store, kind, slug, spec)
    if is_space(own) and Space.open(own).commit_files():
        return None
    near = [
        Neighbour(space=space, differences=found)
        for space in list_spaces(store, kinds=[kind])
        if isinstance(space, SpaceSummary) and space.records
        if 0 < len(found := differences(spec, Space.open(space.path).spec)) <= MOST_DIFFERENCES
    ]
    return min(near, key=lambda one: (len(one.differences), -one.space.records, one.space.path.name), default=None)
