"""The table of accuracies, for people, for machines and for documents."""

from collections.abc import Sequence
from dataclasses import dataclass

import click

from pipeline.console.tables import new_table, print_json, print_table
from pipeline.results.scores import Score, short_names
from stages.figures.statistics import Accuracy, PairedDifference


def print_scores(scores: Sequence[Score], *, as_json: bool) -> None:
    """Print accuracies in percent, and the paired differences to the base where there are any."""
    if as_json:
        print_json(scores)
        return
    found = score_table(scores)
    table = new_table(*found.headings)
    for row in found.rows:
        table.add_row(*row)
    print_table(table)
    if found.caption:
        click.echo(found.caption)


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Accuracies as text; `caption` says what is the same for all rows, which then has no column."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str

    def markdown(self) -> str:
        """The table for a Markdown document."""
        lines = [self.headings, tuple("---" for _ in self.headings), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{self.caption}\n"


def score_table(scores: Sequence[Score]) -> ScoreTable:
    """The table of some runs; points of a matrix show only what varies."""
    names = short_names(list(dict.fromkeys(score.run for score in scores)))
    bases = dict.fromkeys(names[score.base] for score in scores if score.base)
    columns = {
        "run": [names[score.run] for score in scores],
        "data set": [score.dataset for score in scores],
        "prompt": [score.prompt for score in scores],
        "accuracy": [percent_text(score.accuracy) for score in scores],
        "seeds": [f"{score.accuracy.seeds}" for score in scores],
        "questions": [f"{score.accuracy.questions:,}" for score in scores],
    }
    said = []
    if bases:
        differences = [difference_text(score.difference) for score in scores]
        columns["difference"] = [difference for difference, _ in differences]
        columns["95% interval"] = [interval for _, interval in differences]
        alike = [name for name in ("data set", "seeds", "questions") if len(set(columns[name])) == 1]
        said = [f"{name} {columns.pop(name)[0]}" for name in alike]
        said.append(f"difference to {' or '.join(bases)}, of the same seeds and questions")
    headings = tuple(columns)
    return ScoreTable(headings=headings, rows=tuple(zip(*columns.values(), strict=True)), caption="; ".join(said))


def percent_text(accuracy: Accuracy) -> str:
    """Mean and, of several seeds, standard deviation."""
    spread = f" ± {100 * accuracy.deviation:.1f}" if accuracy.seeds > 1 else ""
    return f"{100 * accuracy.mean:.1f}{spread}"


def difference_text(difference: PairedDifference | None) -> tuple[str, str]:
    """Mean and interval of a difference in percent; empty where there is none."""
    if difference is None:
        return "", ""
    return f"{100 * difference.mean:+.1f}", f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
