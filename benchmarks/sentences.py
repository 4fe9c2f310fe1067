"""Who finds the ends of sentences: the rules of `data.steps`, those of an earlier version, pysbd and syntok.

In: the labelled cases of `tests/data/steps.jsonl`, with `--before` an earlier `data/marking.py`, with `--data` a folder
that holds GSM8K. Out: for the rule `sentences` how many cases each gets right by kind of trouble, the milliseconds that
a text takes, and how long marking 10,000 rationales takes now and before, in turn in one process.

    pip install --target /tmp/splitters pysbd==0.3.4 syntok==1.4.4
    git show f380769:data/marking.py > /tmp/marking_before.py
    PYTHONPATH=.:/tmp/splitters python -P benchmarks/sentences.py --before /tmp/marking_before.py --data DATA

The libraries see a text line by line, for they do not take every line end for a border, and pysbd gets the language
whose letters the text has.
"""

import importlib.util
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from types import ModuleType

import click

from data import marking
from data.readers import read_questions
from data.records import Span
from data.settings import DataSource

CASES = Path(__file__).parents[1] / "tests" / "data" / "steps.jsonl"
RATIONALES = 10_000
Splitter = Callable[[str], Iterable[Span]]


def marked_by(module: ModuleType) -> Splitter:
    """The steps that a version of `data.marking` finds."""
    return lambda text: [(start - 1, end - 1) for start, end in module.mark("", text, steps="sentences").step_spans]


def by_line(split: Splitter) -> Splitter:
    """A splitter that sees one line at a time; spans of white space alone are left out."""

    def spans(text: str) -> Iterator[Span]:
        for line in re.finditer(r"[^\r\n]+", text):
            for start, end in split(line[0]):
                piece = line[0][start:end]
                if piece.strip():
                    begin = line.start() + start + len(piece) - len(piece.lstrip())
                    yield begin, begin + len(piece.strip())

    return spans


def pysbd() -> Splitter:
    """Character spans by pysbd, in Japanese, Chinese, Hindi or English."""
    from pysbd import Segmenter

    scripts = {"ja": "[\u3041-\u30ff]", "zh": "[\u4e00-\u9fff]", "hi": "[\u0900-\u097f]", "en": ""}
    segmenters = {language: Segmenter(language=language, clean=False, char_span=True) for language in scripts}

    def split(line: str) -> Iterator[Span]:
        language = next(name for name, letters in scripts.items() if re.search(letters, line))
        return ((piece.start, piece.end) for piece in segmenters[language].segment(line))

    return by_line(split)


def syntok() -> Splitter:
    """From the first to the last of syntok's tokens."""
    from syntok.segmenter import analyze

    def split(line: str) -> Iterator[Span]:
        for paragraph in analyze(line):
            for tokens in paragraph:
                yield tokens[0].offset, tokens[-1].offset + len(tokens[-1].value)

    return by_line(split)


def loaded(path: Path) -> ModuleType:
    """An earlier `data/marking.py`, with the rest of the room as it is now."""
    spec = importlib.util.spec_from_file_location("marking_before", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def right(split: Splitter, case: dict[str, str]) -> bool:
    """Whether the steps are those of the label; an error is none."""
    try:
        return [case["text"][start:end] for start, end in split(case["text"])] == case["steps"]
    except Exception:
        return False


def milliseconds(split: Splitter, texts: list[str], rounds: int) -> float:
    """Milliseconds a text, the median of several rounds."""
    times = []
    for _ in range(rounds):
        start = perf_counter()
        for text in texts:
            list(split(text))
        times.append((perf_counter() - start) * 1000 / len(texts))
    return median(times)


def compare(splitters: dict[str, Splitter], rounds: int) -> None:
    """A line for each kind of trouble, and one for time."""
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    cases = [case for case in cases if case.get("rule") == "sentences"]
    troubles = Counter(case["trouble"] for case in cases)
    print(f"{'':18}{'cases':>8}" + "".join(f"{name:>10}" for name in splitters))
    correct = {
        name: Counter(case["trouble"] for case in cases if right(split, case)) for name, split in splitters.items()
    }
    for trouble, count in troubles.items():
        print(f"{trouble:18}{count:>8}" + "".join(f"{correct[name][trouble]:>10}" for name in splitters))
    print(f"{'all':18}{len(cases):>8}" + "".join(f"{correct[name].total():>10}" for name in splitters))
    texts = [case["text"] for case in cases]
    times = [milliseconds(split, texts, rounds) for split in splitters.values()]
    print(f"{'ms a text':26}" + "".join(f"{time:>10.3f}" for time in times))


def compare_marking(before: ModuleType, data: Path, rounds: int) -> None:
    """Seconds of marking questions with their rationales, now and before in turn."""
    questions = read_questions(DataSource(name="gsm8k", path=str(data / "gsm8k" / "train.jsonl")))
    records = [(question.text, question.reference or "") for question in questions]
    records = (records * (RATIONALES // len(records) + 1))[:RATIONALES]
    for rule in ("periods", "sentences"):
        seconds: dict[str, list[float]] = {"before": [], "now": []}
        for _ in range(rounds):
            for name, module in (("before", before), ("now", marking)):
                start = perf_counter()
                for question, rationale in records:
                    module.mark(question, rationale, steps=rule)
                seconds[name].append(perf_counter() - start)
        ratio = median(now / then for now, then in zip(seconds["now"], seconds["before"], strict=True))
        times = ", ".join(f"{name} {median(each):.3f} s" for name, each in seconds.items())
        print(f"{rule}: {len(records):,} rationales, {times}, {ratio:.2f} times as long")


@click.command()
@click.option(
    "--before", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="An earlier data/marking.py."
)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder with gsm8k/.")
@click.option("--rounds", default=9, show_default=True)
def main(before: Path | None, data: Path | None, rounds: int) -> None:
    """Compare splitters of sentences on labelled cases."""
    splitters = {"ours": marked_by(marking)}
    earlier = None if before is None else loaded(before)
    if earlier is not None:
        splitters["before"] = marked_by(earlier)
    for make in (pysbd, syntok):
        try:
            splitters[make.__name__] = make()
        except ImportError as error:
            print(f"{make.__name__} is left out: {error}")
    compare(splitters, rounds)
    if earlier is not None and data is not None:
        compare_marking(earlier, data, rounds)


if __name__ == "__main__":
    main()
