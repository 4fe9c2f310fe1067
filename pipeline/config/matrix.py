"""What a configuration file asks for: the points of its matrix, one where it names none, each a checked configuration.

In: a file whose `matrix` maps dotted keys to lists of values (their product), or lists such mappings (their union), so
that combinations that make no sense need not be run. Out: a `Matrix` of points, each an ordinary `Config` under a name
made of what varies. The name depends on the point alone: a value more in the matrix renames no other point.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import TypeAlias, cast

from data.errors import ConfigError
from pipeline.config.document import Document, Key, Tree, dotted, entry_yaml, parse_key, put, to_yaml
from pipeline.config.load import check_document, read_config, resolved_yaml
from pipeline.config.schema import Config
from stages.student.objective import objective_of

MATRIX = "matrix"
LARGEST_MATRIX = 1000
LONGEST_NAME = 100
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
"""Text that stands in a name as it is; in it no point can be taken for another."""
PLAIN_PART = re.compile(r"[A-Za-z0-9._]{1,16}")
"""The same inside a list or a mapping, whose parts are joined by dashes."""
SHORT = {"objective.name": "objective", "teacher.model": "teacher", "student.model": "student"}
SHORT_SECTIONS = ("objective", "training")
"""Their keys go without the section; no two of them are called the same."""
FIXED = {
    "name": "it is the folder that all points lie in; each point has a name made of what varies",
    "store": "all points share one store; what differs between them has spaces of its own there",
    "matrix": "a matrix holds no other",
    "runs": "it is no key but an option, --runs, and all points lie below it",
    "training.seeds": "write `training: {seeds: [0, 1, 2]}` beside the matrix: every point then trains a student for "
    "each seed, and the points are compared seed by seed",
}

Choice: TypeAlias = "tuple[Key, Tree, Key]"
"""A key, a value for it, and where in the file's tree the value stands."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a matrix: its name, what it sets, and its whole configuration, which is called by that name too."""

    name: str
    values: Mapping[str, Tree]
    config: Config


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """What a file asks for; `base` is the file without its `matrix`, `written` the matrix itself, if there is one."""

    base: Config
    written: "Tree | None"
    points: tuple[Point, ...]

    @property
    def single(self) -> bool:
        """Whether the file names no matrix: its one point then lies in the run's own folder, under the run's name."""
        return self.written is None

    @property
    def name(self) -> str:
        """Name of the run, and of the folder that its points lie in."""
        return self.base.name

    def yaml(self) -> str:
        """Every value, defaults included, and the matrix: a file that loads back to an equal `Matrix`."""
        return resolved_yaml(self.base) + ("" if self.written is None else to_yaml({MATRIX: self.written}))


def load_matrix(path: Path, overrides: Sequence[str] = ()) -> Matrix:
    """Read and check every point of a file.

    Raises `ConfigError` with one line a problem: of the file without its matrix first, then of the points.
    """
    document = read_config(path, overrides)
    base = check_document(document)
    if MATRIX not in document.tree:
        return Matrix(base=base, written=None, points=(Point(name=base.name, values={}, config=base),))
    written = document.tree[MATRIX]
    choices = [choice for mapping, at in _mappings(document) for choice in _choices(document, mapping, at)]
    points, problems = [], []
    for chosen in choices:
        try:
            points.append(_point(document, chosen))
        except ConfigError as error:
            problems += str(error).splitlines()
    problems = list(dict.fromkeys(problems)) or list(_doubles(document, points))
    if problems:
        raise ConfigError("\n".join(problems))
    return Matrix(base=base, written=written, points=tuple(points))


def _mappings(document: Document) -> Iterator[tuple[dict[str, Tree], Key]]:
    """The mappings of the matrix, and where each stands."""
    written = document.tree[MATRIX]
    several = written if isinstance(written, list) else [written]
    if not several:
        raise _complaint(document, (MATRIX,), "expected at least one mapping from keys to lists of values, found []")
    for number, mapping in enumerate(several):
        at: Key = (MATRIX, number) if isinstance(written, list) else (MATRIX,)
        if not isinstance(mapping, dict) or not mapping:
            expected = "expected a mapping such as {objective.beta: [1, 3]}, or a list of them"
            raise _complaint(document, at, f"{expected}, found {mapping!r}")
        yield mapping, at


def _choices(document: Document, mapping: dict[str, Tree], at: Key) -> list[tuple[Choice, ...]]:
    """All combinations of the values in one mapping."""
    keys = {name: _varied_key(document, (*at, name)) for name in mapping}
    _refuse_overlap(document, keys, at)
    columns: list[list[Choice]] = []
    for name, values in mapping.items():
        if not isinstance(values, list) or not values:
            raise _complaint(document, (*at, name), f"expected a list of values, found {values!r}")
        columns.append([(keys[name], value, (*at, name, number)) for number, value in enumerate(values)])
    if (count := math.prod(map(len, columns))) > LARGEST_MATRIX:
        raise _complaint(document, at, f"expected at most {LARGEST_MATRIX:,} points, found {count:,}")
    return list(product(*columns))


def _varied_key(document: Document, at: Key) -> Key:
    """The key that the last part of `at` names; `ConfigError` where it must not vary."""
    name = str(at[-1])
    if (key := parse_key(name)) is None:
        raise _complaint(document, at, "expected a key such as objective.beta")
    if (fixed := dotted(key)) in FIXED:
        raise _complaint(document, at, f"{fixed} cannot vary: {FIXED[fixed]}")
    for set_key, place in document.places.items():
        if set_key[: len(key)] == key and place.startswith("--set "):
            raise _complaint(document, at, f"varies here and is one value by `{place}`; leave out one of the two")
    return key


def _refuse_overlap(document: Document, keys: Mapping[str, Key], at: Key) -> None:
    for (name, key), (other, longer) in permutations(keys.items(), 2):
        if longer[: len(key)] == key:
            raise _complaint(document, (*at, other), f"is part of {name}, which varies too; keep one of the two")


def _point(document: Document, chosen: Sequence[Choice]) -> Point:
    """The point with these values, checked like any configuration; its name takes the place of the matrix's."""
    tree = {name: deepcopy(value) for name, value in document.tree.items() if name != MATRIX}
    places = dict(document.places)
    for key, value, at in chosen:
        put(tree, key, deepcopy(value), document.place(at))
        places = {place: line for place, line in places.items() if place[: len(key)] != key}
        places |= {(*key, *below[len(at) :]): line for below, line in document.places.items() if below[: len(at)] == at}
        for length in range(1, len(key) + 1):
            places.setdefault(key[:length], document.place(at))
    config = check_document(Document(path=document.path, tree=tree, places=places))
    values = {dotted(key): _value_of(config, key, value) for key, value, _ in chosen}
    name = point_name(values)
    return Point(name=name, values=values, config=config.model_copy(update={"name": name}))


def _value_of(config: Config, key: Key, written: Tree) -> Tree:
    """The value as the configuration understands it where that is a number, so that 3 and 3.0 have one name."""
    found = cast(Tree, config.model_dump(mode="json"))
    for part in key:
        found = found[int(part)] if isinstance(found, list) else cast(dict[str, Tree], found)[str(part)]
    return found if isinstance(found, int | float) else written


def point_name(values: Mapping[str, Tree]) -> str:
    """Name of the point that sets `values`: `objective=molsaki,alignment=uniform`, safe in every file system."""
    name = ",".join(f"{_short_key(key)}={_short_value(value)}" for key, value in values.items())
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}.{_hash(dict(values))}"


def _short_key(key: str) -> str:
    section, _, rest = key.partition(".")
    short = SHORT.get(key, rest if rest and section in SHORT_SECTIONS else key)
    return short if PLAIN.fullmatch(short) else f"{_readable(short)}.{_hash(key)}"


def _short_value(value: Tree) -> str:
    """A value as it stands in a name; with a hash where text has other characters, is long, or looks like a number."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, str):
        plain = PLAIN.fullmatch(value) and entry_yaml("a", value) == f"a: {value}"
        return value if plain else f"{_readable(value)}.{_hash(value)}"
    parts = list(_parts(value))
    if 0 < len(parts) <= 4 and all(PLAIN_PART.fullmatch(part) for part in parts):
        return "-".join(parts)
    return f"{_readable('-'.join(parts))}.{_hash(value)}"


def _parts(value: Tree) -> Iterator[str]:
    """The keys and values of a list or mapping, from left to right."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield name
            yield from _parts(below)
    elif isinstance(value, list):
        for below in value:
            yield from _parts(below)
    else:
        yield value if isinstance(value, str) else json.dumps(value)


def _readable(text: str) -> str:
    """The end of `text` as far as a file system takes it: of a path or hub id its last part."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text.rstrip("/").rpartition("/")[2]).strip("-.")[:24] or "value"


def _hash(value: Tree) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:8]


def _doubles(document: Document, points: Sequence[Point]) -> Iterator[str]:
    """Points that are one and the same, or whose students would be."""
    place = document.place((MATRIX,))
    counts = Counter(point.name.casefold() for point in points)  # some file systems do not tell cases apart
    repeated = dict.fromkeys(point.name for point in points if counts[point.name.casefold()] > 1)
    if repeated:
        yield f"{place}: matrix: {' and '.join(repeated)} stands there more than once, or differs in case alone"
        return
    known: dict[str, Point] = {}
    for point in points:
        first = known.setdefault(_identity(point.config), point)
        if first is not point:
            objective = point.config.objective.name
            yield (
                f"{place}: matrix: {first.name} and {point.name} train the same students, for to objective {objective} "
                "the difference means nothing; write a list of mappings, with the keys of each objective in its own"
            )


def _identity(config: Config) -> str:
    """Equal for configurations whose students and scores are equal, as far as the objective tells."""
    values = config.model_dump(mode="json", exclude={"name", "objective"})
    return json.dumps([values, objective_of(config.objective).described()], sort_keys=True, default=str)


def _complaint(document: Document, at: Key, problem: str) -> ConfigError:
    return ConfigError(f"{document.place(at)}: {dotted(at)}: {problem}")
