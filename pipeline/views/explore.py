"""`molsaki explore`: the records of a cache as one HTML page to search and look through, without a server.

In: an attention space, or a run or matrix with what its students looked at before and after training. Out: one file
that asks nobody for anything. Nothing is computed but the layers' shares of Eq. 4: no model is loaded, and every number
on the page is the one that the store or the run's folder holds.

Each look at a record (the teacher's, a student's) is packed by itself and unpacked when the record is opened, so that
thousands of records open as quickly as one. Unless told otherwise, as many records are embedded as fit into five
megabytes, and of a matrix one student of each point, for students take up most of a record.

Shape letters: L layers, S steps, K critical words.
"""

import base64
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.exchange.chosen import read_keys
from cache.fingerprints import JSON
from cache.student_attention import STUDENT_ATTENTION, StudentLook, When, read_student_attention
from data.errors import ConfigError, DamagedCacheError
from data.records import Marked, Rationale
from pipeline.results.folder import RunFolder
from pipeline.views.choose import Chosen
from pipeline.views.page import Page, embedded_json, write_page
from stages.figures.attention_shares import record_layer_weights

LARGEST = 5_000_000
"""Bytes of a page that nobody has asked to be larger: it goes through every mail."""
OF_PAGE = 80_000
"""Bytes that are not records: template, style and script."""
PIECE = 128
"""Records read from the store at a time."""
ONE_OF_EACH = 1
"""Students of each point of a matrix: ten seeds of ten points would leave room for some ten records."""

Looks = Mapping[str, Mapping[When, StudentLook]]
"""What a student saw, by the key of the record."""
Students = Mapping[int, Looks]
"""The students of a run, by seed."""


@dataclass(frozen=True, kw_only=True)
class Selected:
    """Which records are wanted: those named or found, in the order of the run or a random one, at most so many."""

    records: int | None = None
    keys: Path | None = None
    search: str | None = None
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Explored:
    """What the page is about: an open store, the records meant, where they come from and what students saw of them.

    `runs` are students by the name of their run or point; `left_out` counts trained ones not in here.
    """

    chosen: Chosen
    runs: Mapping[str, Students] = field(default_factory=dict)
    left_out: int = 0
    origins: Mapping[tuple[str, str], Rationale] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run, the matrix, or the space."""
        return self.chosen.name

    @property
    def count(self) -> int:
        """How many students these are."""
        return sum(map(len, self.runs.values()))


def look_at(chosen: Chosen, students: int | None = None) -> Explored:
    """Read what lies beside the attention of runs: rationales' origins, and where their students looked.

    Of each run these are its first `students` by seed; unless told, all of a run, and one of each point of a matrix.
    """
    most = ONE_OF_EACH if students is None and chosen.matrix is not None else students
    folders = {name: _student_folders(folder) for name, folder in chosen.runs.items()}
    found = {name: {seed: _looks(own[seed]) for seed in list(own)[:most]} for name, own in folders.items()}
    return Explored(
        chosen=chosen,
        runs={name: students for name, students in found.items() if students},
        left_out=sum(len(own) - len(found[name]) for name, own in folders.items()),
        origins={(one.question.text, one.text): one for one in chosen.rationales},
    )


def default_out(chosen: Chosen) -> Path:
    """In the folder of the run; for a space, which nothing is ever added to, in the working directory."""
    if chosen.folder is not None and chosen.folder.is_dir():
        return RunFolder(chosen.folder).explorer
    return Path(f"{chosen.attention.space.path.name}.html")


@dataclass(frozen=True, kw_only=True)
class Written:
    """A page of so many `bytes` that shows `shown` of the `wanted` records, and `students` of those `trained`."""

    shown: int
    wanted: int
    bytes: int
    students: int
    trained: int


def write_explorer(explored: Explored, selected: Selected, out: Path) -> Written:
    """Write the page; raises `ConfigError` where no record is as wanted."""
    keys = selected_keys(explored, selected)
    limit = None if selected.records is not None or selected.keys is not None else LARGEST - OF_PAGE
    records = list(_fitting(_records(explored, keys[: selected.records]), limit))
    about = _about(explored, shown=len(records), wanted=len(keys))
    page = Page(
        title=f"{explored.name}: records",
        template="explore.html",
        values={"about": about},
        data={"explored": records},
        styles=("explore.css",),
        scripts=("explore.js",),
    )
    write_page(out, page)
    return Written(
        shown=len(records),
        wanted=len(keys),
        bytes=out.stat().st_size,
        students=explored.count,
        trained=explored.count + explored.left_out,
    )


def selected_keys(explored: Explored, selected: Selected) -> list[str]:
    """The keys wanted, in order: what most students were asked about first, unless the order is to be random."""
    keys: Sequence[str] = explored.chosen.keys
    if selected.keys is not None:
        keys = [explored.chosen.key(key) for key in read_keys(selected.keys)]
    if selected.search is not None:
        wanted = selected.search.casefold()
        keys = [key for key in keys if wanted in explored.chosen.attention.marked(key).text.casefold()]
    if not keys:
        raise ConfigError(f"--search {selected.search}: no record of {explored.name} has that in its text")
    if selected.seed is not None:
        order = np.random.default_rng(selected.seed).permutation(len(keys))
        return [keys[place] for place in order.tolist()]
    seen = Counter(key for students in explored.runs.values() for looks in students.values() for key in looks)
    return sorted(keys, key=lambda key: -seen[key])


def packed(attention_LSK: npt.NDArray[np.float16]) -> str:
    """Float16 to the bit, as text: cell by cell with its layers side by side, as in the store, deflated, in base64."""
    values = np.moveaxis(attention_LSK, 0, -1).astype("<f2").tobytes()
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return base64.b64encode(deflater.compress(values) + deflater.flush()).decode()


def _student_folders(run: Path) -> Mapping[int, Path]:
    """The run's students by seed; students whose attention was not kept are left out."""
    return {seed: one.path for seed, one in RunFolder(run).students().items() if one.attention.exists()}


def _looks(student: Path) -> Looks:
    found: dict[str, dict[When, StudentLook]] = {}
    for look in read_student_attention(student):
        found.setdefault(look.key, {})[look.when] = look
    return found


def _fitting(records: Iterator[dict[str, JSON]], limit: int | None) -> Iterator[dict[str, JSON]]:
    """The records that together take no more than `limit` bytes in the page, one at least."""
    taken = 0
    for number, record in enumerate(records):
        taken += 0 if limit is None else len(embedded_json(record).encode()) + 1
        if limit is not None and number and taken > limit:
            return
        yield record


def _records(explored: Explored, keys: Sequence[str]) -> Iterator[dict[str, JSON]]:
    attention = explored.chosen.attention
    for start in range(0, len(keys), PIECE):
        piece = keys[start : start + PIECE]
        for key, block in zip(piece, attention.read(piece), strict=True):
            yield _record(explored, key, attention.marked(key), block)


def _record(explored: Explored, key: str, marked: Marked, block: npt.NDArray[np.float16]) -> dict[str, JSON]:
    weights = record_layer_weights(block, explored.chosen.tau)
    found = {run: _looked_at(students, key, block) for run, students in explored.runs.items()}
    students: dict[str, JSON] = {run: looks for run, looks in found.items() if looks}
    return {
        "key": key,
        "text": marked.text,
        "rationale": marked.rationale_start,
        "steps": [[*span] for span in marked.step_spans],
        "words": [[*span] for span in marked.critical_spans],
        "teacher": _look(block, weights),
        **({"students": students} if students else {}),
        **_origin(explored.origins.get((marked.question, marked.rationale))),
    }


def _looked_at(students: Students, key: str, block: npt.NDArray[np.float16]) -> dict[str, JSON]:
    """What the students of one run saw of a record, by seed."""
    return {
        str(seed): {when: _look(look.attention, look.layer_weights) for when, look in looks[key].items()}
        for seed, looks in students.items()
        if key in looks and _fits(looks[key].values(), block, key)
    }


def _look(attention_LSK: npt.NDArray[np.float16], weights_L: npt.NDArray[np.floating] | None) -> dict[str, JSON]:
    weights: JSON = None if weights_L is None else [float(f"{weight:.6g}") for weight in weights_L.tolist()]
    return {"layers": len(attention_LSK), "weights": weights, "packed": packed(attention_LSK)}


def _fits(looks: Iterable[StudentLook], block: npt.NDArray[np.float16], key: str) -> bool:
    """Whether a student saw the same steps and words: a key is the hash of the record, so anything else is damage."""
    for look in looks:
        if look.attention.shape[1:] != block.shape[1:]:
            raise DamagedCacheError(
                f"record {key}: {look.attention.shape[1:]} steps and words lie beside a student, "
                f"{block.shape[1:]} in the store; delete the student's {STUDENT_ATTENTION}"
            )
    return True


def _origin(rationale: Rationale | None) -> dict[str, JSON]:
    """Where a record comes from, as far as a run knows it."""
    if rationale is None:
        return {}
    question = rationale.question
    return {"dataset": question.dataset, "id": question.id, "answer": rationale.answer, "phase": rationale.phase}


def _about(explored: Explored, *, shown: int, wanted: int) -> dict[str, object]:
    """What the page says of itself."""
    attention = explored.chosen.attention
    spec = attention.space.spec
    return {
        "name": explored.name,
        "space": attention.space.path.name,
        "model": spec.get("model"),
        "layers": attention.layers,
        "rounding": spec.get("rounding"),
        "tau": explored.chosen.tau,
        "shown": shown,
        "left_out": wanted - shown,
        "students": explored.count,
        "trained": explored.count + explored.left_out,
        "notes": explored.chosen.notes,
    }
