"""What `benchmarks/gpu.sh` packs and makes up: packages that another machine lacks, a real model's file, stand-ins.

    python -m benchmarks.gpu_parts packages 3.12 [THERE]    the packages to carry to a Python 3.12, one a line, pinned
    python -m benchmarks.gpu_parts model FOLDER             the real model's GGUF file, downloaded into FOLDER
    python -m benchmarks.gpu_parts made-up FOLDER           a random model and made-up questions in the formats of SVAMP
                                                            and of PaLM's rationales

THERE is what `pip list` prints on the other machine, with versions or without. torch is never carried: a machine with a
GPU has the one that fits it.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
STAYS = {"torch"}
MADE_UP_LAYERS = 8
MADE_UP_QUESTIONS = 16


def missing_packages(python: str, there: Mapping[str, str | None]) -> list[str]:
    """What molsaki needs, directly or not, on a Python of that version, beyond the packages that are `there`.

    One that is there counts, and all that it needs, unless its version is known and not what somebody asks for.
    """
    pins = dict(_pins((ROOT / "requirements" / "cpu.txt").read_text(encoding="utf-8").splitlines(), python))
    wanted, carried = dict[str, SpecifierSet](), set[str]()
    left = [("molsaki", "")]
    seen = set(left)
    while left:
        name, extra = left.pop()
        for need in _needs(name, python, extra):
            other = canonicalize_name(need.name)
            wanted[other] = wanted.get(other, SpecifierSet()) & need.specifier
            if other not in STAYS and not (other in there and _suits(there[other], wanted[other])):
                carried.add(other)
                fresh = {(other, ""), *((other, more) for more in need.extras)} - seen
                seen |= fresh
                left += fresh
    return [f"{name}=={pins[name]}" for name in sorted(carried & pins.keys())]


def listed_packages(lines: Iterable[str]) -> dict[str, str | None]:
    """Names and versions in what pip lists: `name==version`, `name version`, or the name alone."""
    words = [line.replace("==", " ").split() for line in lines if line.strip() and not line.startswith(("#", "-"))]
    return {canonicalize_name(name): rest[0] if rest else None for name, *rest in words}


def _suits(version: str | None, specifier: SpecifierSet) -> bool:
    return version is None or specifier.contains(version, prereleases=True)


def _pins(lines: Iterable[str], python: str) -> Iterator[tuple[str, str]]:
    for line in lines:
        pinned = Requirement(line)
        if pinned.marker is None or pinned.marker.evaluate(_environment(python)):
            yield canonicalize_name(pinned.name), str(pinned.specifier).removeprefix("==")


def _environment(python: str, extra: str = "") -> dict[str, str]:
    return {"python_version": python, "python_full_version": f"{python}.0", "extra": extra}


def _needs(package: str, python: str, extra: str) -> Iterator[Requirement]:
    """What an installed package asks for; nothing where only another Python than this one wants it."""
    with suppress(PackageNotFoundError):
        for line in requires(package) or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate(_environment(python, extra)):
                yield need


def write_gguf(folder: Path) -> Path:
    """Download the real model's GGUF file into a folder."""
    from tests.real.model import downloaded, taken_out

    with TemporaryDirectory(prefix="molsaki-gpu-") as scratch:
        return taken_out(downloaded(Path(scratch)), folder)


def make_up(folder: Path) -> None:
    """Write a random model of a few layers and made-up questions, as a pack has the real ones."""
    from data.sets.synthetic import synthetic_questions
    from tests.fakes import tiny_model_folder

    tiny_model_folder(folder / "model", "llama", layers=MADE_UP_LAYERS)
    rationales = []
    for split in ("train", "test"):
        questions = synthetic_questions(MADE_UP_QUESTIONS, seed=0, split=split)
        rows = []
        for question in questions:
            body, _, asked = question.text.rpartition(". ")
            number = float(str(question.answer))
            rows.append({"ID": question.id, "Body": f"{body}.", "Question": asked, "Answer": number})
            written = {"palm_rationale": question.reference, "palm_value": number}
            rationales.append({"ID": question.id, **written})
        _write_rows(folder / f"{split}.jsonl", rows)
    _write_rows(folder / "palm.jsonl", rationales)


def _write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    """Do what the first argument says."""
    match arguments:
        case ["packages", python, *there]:
            lines = [line for file in there for line in Path(file).read_text(encoding="utf-8").splitlines()]
            print(*missing_packages(python, listed_packages(lines)), sep="\n")
        case ["model", folder]:
            print(write_gguf(Path(folder)))
        case ["made-up", folder]:
            make_up(Path(folder))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
