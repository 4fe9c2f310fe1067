"""How many labelled outputs each parser of answers judges as a careful reader does, and what an answer costs.

In: `tests/data/answers.jsonl`, in which each output is labelled by hand with the answer that a reader sees in it and
with whether that is the gold answer. Out: a table by kind of trouble. A case counts where the parser judges the output
right or wrong as its label says; for ours, `read` also counts where the answer itself is the labelled one.

- `ours`: `data.answers.parse_answer` and `data.dataset.is_right`.
- `math-verify`: `math_verify.parse` with its default extraction for numbers and with that of letters for choices,
  then `verify`. It sees the gold answer as it is written, in dollar signs if it is LaTeX without them. Yes and no,
  several numbers and words are not what it reads; such cases are left out for it. To it 45% and 0.45 are one number.

Both are timed over judging one output after another, in one process, after one that is not counted. `same` is how ours
does on the cases that math-verify reads at all.

    python -m benchmarks.answers
    python -m benchmarks.answers --parser ours --failures
"""

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click

from data.answers.choices import letters_of
from data.answers.parse import parse_answer
from data.dataset import is_right
from tests.data.test_corpus import ANSWERS, Case, is_as_labelled

INSTALL = "python -m pip install math-verify==0.9.0 latex2sympy2-extended==1.11.0"
Judge = Callable[[Case], tuple[bool, str | None]]
"""Whether an output is right, and what was found in it, for people to read."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One case as one parser sees it."""

    case: Case
    right: bool
    found: str | None
    seconds: float

    @property
    def as_labelled(self) -> bool:
        """Whether right and wrong are told apart as the label says."""
        return self.right is self.case.right


def ours(case: Case) -> tuple[bool, str | None]:
    """The parser of this repository."""
    found = parse_answer(case.text, case.asked)
    return is_right(found, case.asked), found


def math_verify_judge() -> Judge:
    """The parser of math-verify, which has to be installed."""
    try:
        from math_verify import StringExtractionConfig, parse, verify
    except ImportError as missing:
        raise click.ClickException(f"math-verify is not installed: {INSTALL}") from missing
    logging.getLogger("math_verify").setLevel(logging.ERROR)

    def judge(case: Case) -> tuple[bool, str | None]:
        if case.asked.answer_kind == "choice":
            letters = [StringExtractionConfig(strings=tuple(letters_of(case.asked.choices)))]
            gold, found = parse(case.asked.answer or case.gold, letters), parse(case.text, letters)
        else:
            gold, found = parse(_as_formula(case.gold)), parse(case.text)
        return verify(gold, found), str(found) if found else None

    return judge


def _as_formula(gold: str) -> str:
    """LaTeX that is not set off as a formula is not read."""
    return f"${gold}$" if "\\" in gold and not gold.startswith(("$", "\\(", "\\[")) else gold


PARSERS: dict[str, tuple[Callable[[], Judge], frozenset[str]]] = {
    "ours": (lambda: ours, frozenset({"number", "numbers", "choice", "boolean", "text"})),
    "math-verify": (math_verify_judge, frozenset({"number", "choice"})),
}
"""How each parser is made, and the kinds of answers that it reads."""


def judged_by(name: str, cases: Sequence[Case]) -> list[Judged]:
    """All cases of the kinds that a parser reads; the first one once more, beforehand, without being timed."""
    make, kinds = PARSERS[name]
    judge, readable = make(), [case for case in cases if case.asked.answer_kind in kinds]
    judge(readable[0])
    judged = []
    for case in readable:
        started = time.perf_counter()
        right, found = judge(case)
        judged.append(Judged(case=case, right=right, found=found, seconds=time.perf_counter() - started))
    return judged


def share(judged: Sequence[Judged], *, read: bool = False) -> str:
    """How many of how many are as labelled."""
    if not judged:
        return "n/a"
    agreeing = [each for each in judged if (is_as_labelled(each.found, each.case) if read else each.as_labelled)]
    return f"{len(agreeing)}/{len(judged)}"


def table(results: dict[str, list[Judged]]) -> list[str]:
    """A line for each kind of trouble and one for all, then what an answer costs."""
    columns: dict[str, tuple[Sequence[Judged], bool]] = {}
    for name, judged in results.items():
        columns[name] = (judged, False)
        if name == "ours":
            columns |= {"read": (judged, True), "same": (_in_both(judged), False)}
    troubles = list(dict.fromkeys(case.trouble for case in ANSWERS))
    lines = [f"{'kind of trouble':26}" + "".join(f"{name:>13}" for name in columns)]
    for name, chosen in [*((trouble, [trouble]) for trouble in troubles), ("all", troubles)]:
        shares = [share(_of(judged, chosen), read=read) for judged, read in columns.values()]
        lines.append(f"{name:26}" + "".join(f"{each:>13}" for each in shares))
    return lines + [cost(name, judged) for name, judged in results.items()]


def cost(name: str, judged: Sequence[Judged]) -> str:
    """What an answer costs a parser."""
    milliseconds = [1000 * each.seconds for each in judged]
    return (
        f"{name}: {statistics.median(milliseconds):.2f} ms an answer in the median, "
        f"{statistics.mean(milliseconds):.2f} in the mean, {max(milliseconds):.0f} at most"
    )


def _of(judged: Sequence[Judged], troubles: Sequence[str]) -> list[Judged]:
    return [each for each in judged if each.case.trouble in troubles]


def _in_both(judged: Sequence[Judged]) -> list[Judged]:
    return [each for each in judged if each.case.asked.answer_kind in PARSERS["math-verify"][1]]


def failure(name: str, judged: Judged) -> str:
    """One case that is not judged, or by ours not read, as labelled."""
    case = judged.case
    return (
        f"{name}, {case.trouble}, {case.asked.answer_kind}: {case.text!r}, gold {case.gold!r}, answer {case.answer!r}: "
        f"found {judged.found!r}, {'right' if judged.right else 'wrong'}"
    )


@click.command()
@click.option("--parser", type=click.Choice(list(PARSERS)), help="Only this one.")
@click.option("--failures", is_flag=True, help="List the cases that are not judged as labelled.")
def main(parser: str | None, failures: bool) -> None:
    """Compare parsers of answers on the labelled corpus."""
    results = {name: judged_by(name, ANSWERS) for name in ([parser] if parser else PARSERS)}
    if failures:
        for name, judged in results.items():
            wrong = [
                each
                for each in judged
                if not each.as_labelled or (name == "ours" and not is_as_labelled(each.found, each.case))
            ]
            click.echo("".join(failure(name, each) + "\n" for each in wrong), nl=False)
    click.echo("\n".join(table(results)))


if __name__ == "__main__":
    main()
