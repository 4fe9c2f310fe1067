"""The page of `molsaki report`: figures of runs enter, a `Page` for `pipeline.views.page` leaves.

Everything here is words, tables and drawings; the figures are those of `pipeline.views.run_figures`. A run keeps its
colour through the whole page. What all runs have alike is said once, what differs stands side by side.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.config.document import Tree, entry_yaml, to_yaml
from pipeline.console.progress import duration
from pipeline.console.tables import binary_size
from pipeline.results.scores import Score, difference_text, likelihood_table, percent_text, short_names
from pipeline.results.students import LOSS
from pipeline.run.plan import STAGES
from pipeline.views import charts
from pipeline.views.page import Page
from pipeline.views.run_figures import Dropped, Figures, Layers, RunFigures, StageTotal
from stages.figures.statistics import Curve

LOSS_TITLES = {
    LOSS: "Total loss",
    "L_pre": "L_pre, predicting the answer",
    "L_exp": "L_exp, explaining",
    "L_att": "L_att, attention",
    "L_soft": "L_soft, soft labels",
    "L_mi": "L_mi, both tasks alike",
    "L_rat": "L_rat, the rationale",
    "L_ans": "L_ans, the answer behind it",
    "router_entropy": "Mixture of layers: 1 is even, 0 a single layer",
    "gradient_ratio": "Gradient of the attention loss, as a share of that of explaining",
}
SIDE_BY_SIDE = 4
"""So many runs stand in columns; more stand in rows."""
DRAWN_RUNS = 24
"""So many runs have drawings of their layers; beyond, the page would be long and large."""
BANDED_RUNS = 6
"""So many runs have bands around their curves; more would hide each other."""
LISTED_EXECUTIONS = 40
NAMED_LAYERS = 4
ORIGIN = re.compile("revision|fingerprint|code|libraries|machine|Python|worked on")
QUARTERS = ("first", "a quarter", "half", "three quarters", "last")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts; the first column names the rows. `numbers` are columns that are aligned to the right."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with what stands below it, and its numbers."""

    title: str
    drawing: Markup
    table: Table
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A run as the page shows it: its short name, its whole one, its colour and its number."""

    number: int
    short: str
    whole: str
    style: str

    @property
    def swatch(self) -> Markup:
        """Its colour, for a legend."""
        return charts.swatch(self.style)


ScoreRow = tuple[Named, tuple[str, Markup], tuple[str, str, Markup] | None]
"""A run, its accuracy and that drawn; its difference to the base, the interval of that, and both drawn."""


@dataclass(frozen=True, kw_only=True)
class ScoreGroup:
    """All runs on one data set by one prompt."""

    dataset: str
    prompt: str
    count: str
    rows: Sequence[ScoreRow]
    base: str
    accuracy_axis: Markup
    difference_axis: Markup | None


def report_page(figures: Figures, names: Sequence[str]) -> Page:
    """The page of these figures; `names` are the runs as they were asked for, for the heading."""
    runs = _named(figures.runs)
    totals = [total for run in figures.runs for total in run.stages]
    heading = ", ".join(names) if len(names) <= SIDE_BY_SIDE else f"{len(names)} runs"
    common, different = _split([_facts(run, origins=False) for run in figures.runs])
    origins, other_origins = _split([_facts(run, origins=True) for run in figures.runs])
    config_common, config_different = _split([dict(_flat(run.config)) for run in figures.runs])
    return Page(
        title=f"{heading} · MoLSAKI report",
        template="report.html",
        styles=("report.css",),
        scripts=("report.js",),
        values={
            "heading": heading,
            "summary": _summary(figures),
            "runs": list(runs.values()),
            "scores": list(_score_groups(figures, runs)),
            "likelihoods": _likelihoods(figures),
            "missing": _missing(figures, runs),
            "facts": common,
            "facts_table": _side_by_side("Where the runs differ", different, runs),
            "origins": origins,
            "origins_table": _side_by_side("Where the runs differ", other_origins, runs),
            "dropped": _dropped_table(figures, runs),
            "losses": list(_losses(figures, runs)),
            "banded": len(runs) <= BANDED_RUNS,
            "layers": [(runs[run.name], drawn) for run in figures.runs[:DRAWN_RUNS] if (drawn := _layers(run))],
            "layers_left_out": max(0, len(figures.runs) - DRAWN_RUNS),
            "stages": list(_stage_rows(figures, runs)),
            "gpu": any(total.peak_gpu_bytes for total in totals),
            "executed_again": any(map(_outcomes, totals)),
            "config_table": _side_by_side("Settings that differ", config_different, runs),
            "config_common": len(config_common),
            "configs": [
                (runs[run.name], to_yaml(dict(run.config)))
                for run in (figures.runs if len(runs) <= SIDE_BY_SIDE else figures.runs[:1])
                if run.config
            ],
            "executions": [
                (runs[run.name], _executions_table(run)) for run in figures.runs[:DRAWN_RUNS] if run.executions
            ],
        },
    )


def _named(runs: Sequence[RunFigures]) -> dict[str, Named]:
    short = short_names([run.name for run in runs])
    return {
        run.name: Named(
            number=number, short=short[run.name], whole=run.name, style=f"r{number} {charts.series_style(number)}"
        )
        for number, run in enumerate(runs)
    }


def _summary(figures: Figures) -> list[str]:
    """What was done in a few words, from what all runs have alike."""
    facts, _ = _split([run.facts for run in figures.runs])
    students = sum(len(run.training.seeds) for run in figures.runs if run.training)
    begun_as = facts.get("student before training", "").partition(",")[0]
    parts = [
        f"teacher {facts['teacher']}" if "teacher" in facts else "",
        f"{students:,} student{'' if students == 1 else 's'}" + (f" from {begun_as}" if begun_as else ""),
        facts.get("training data", "").partition(",")[0],
        facts.get("worked on", ""),
    ]
    return [part for part in parts if part]


def _missing(figures: Figures, runs: Mapping[str, Named]) -> list[tuple[str, str]]:
    """What is not known, each with the runs that it is not known of."""
    found: dict[str, list[str]] = {}
    for run in figures.runs:
        for line in run.missing:
            found.setdefault(line, []).append(runs[run.name].short)
    return [(_some(names, len(runs)) if len(runs) > 1 else "", line) for line, names in found.items()]


def _facts(run: RunFigures, *, origins: bool) -> dict[str, str]:
    """What was run, or, as `origins`, what only tracing it back takes: revisions, fingerprints, versions, machines."""
    return {name: value for name, value in run.facts.items() if bool(ORIGIN.search(name)) == origins}


def _split(found: Sequence[Mapping[str, str]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What all have alike, and what not, with a value for each, empty where one has none."""
    names = dict.fromkeys(name for one in found for name in one)
    values = {name: [one.get(name, "") for one in found] for name in names}
    common = {name: each[0] for name, each in values.items() if len(set(each)) == 1}
    return common, {name: each for name, each in values.items() if name not in common}


def _side_by_side(caption: str, values: Mapping[str, Sequence[str]], runs: Mapping[str, Named]) -> Table | None:
    """Few runs in columns, many in rows; None where nothing differs."""
    if not values:
        return None
    short = [run.short for run in runs.values()]
    if len(short) <= SIDE_BY_SIDE:
        rows = [(name, *each) for name, each in values.items()]
        return Table(caption=caption, headings=("", *short), rows=rows, numbers=False)
    rows = [(run, *(each[number] for each in values.values())) for number, run in enumerate(short)]
    return Table(caption=caption, headings=("run", *values), rows=rows, numbers=False)


def _flat(tree: Mapping[str, Tree], above: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys with their values as they would be written."""
    for key, value in tree.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for number, item in enumerate(value):
                yield from _flat(item, f"{name}.{number}.") if isinstance(item, dict) else ()
        else:
            yield name, entry_yaml("_", value).removeprefix("_:").strip()


def _score_groups(figures: Figures, runs: Mapping[str, Named]) -> Iterator[ScoreGroup]:
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in figures.scores:
        groups.setdefault((score.dataset, score.prompt), []).append(score)
    by_seed = {run.name: run.accuracies for run in figures.runs}
    accuracies = _accuracy_scale(figures)
    accuracy_axis = charts.strip_axis("accuracy in percent", accuracies, lambda share: f"{100 * share:g}")
    differences = _difference_scale(figures)
    difference_axis = None if differences is None else charts.strip_axis("difference in points", differences, _signed)
    for (dataset, prompt), scores in groups.items():
        rows = [
            _score_row(score, by_seed[score.run][dataset, prompt], runs[score.run], accuracies, differences)
            for score in scores
        ]
        bases = dict.fromkeys(runs[score.base].short for score in scores if score.base)
        yield ScoreGroup(
            dataset=dataset,
            prompt=prompt,
            count=_count(scores),
            rows=rows,
            base=", ".join(bases),
            accuracy_axis=accuracy_axis,
            difference_axis=difference_axis,
        )


def _likelihoods(figures: Figures) -> Table | None:
    """Log-probabilities and their differences as `molsaki compare` has them; None where none was measured."""
    found = likelihood_table(figures.scores)
    return None if found is None else Table(caption=found.caption, headings=found.headings, rows=found.rows)


def _accuracy_scale(figures: Figures) -> charts.Scale:
    """One scale for all accuracies of the page, so that data sets and prompts can be compared by eye."""
    shares = [share for run in figures.runs for seeds in run.accuracies.values() for share in seeds.values()]
    edges = [edge for score in figures.scores for edge in _spread(score)]
    return charts.spread_scale([*shares, *edges] or [0.0], start=8, end=252, least=0.1)


def _spread(score: Score) -> tuple[float, float]:
    """A standard deviation to both sides of the mean, as far as there are such accuracies."""
    mean, deviation = score.accuracy.mean, score.accuracy.deviation
    return max(0.0, mean - deviation), min(1.0, mean + deviation)


def _difference_scale(figures: Figures) -> charts.Scale | None:
    found = [score.difference for score in figures.scores if score.difference]
    values = [value for one in found for value in (one.low, one.high)]
    return charts.spread_scale([0.0, *values], start=8, end=212, least=0.04) if values else None


def _signed(value: float) -> str:
    """A share of 1 in percent, with its sign."""
    return f"{100 * value:+g}" if abs(value) > 1e-9 else "0"


def _count(scores: Sequence[Score]) -> str:
    """`3 seeds, 500 questions`, where the runs differ with the range."""
    seeds = _range(score.accuracy.seeds for score in scores)
    questions = _range(score.accuracy.questions for score in scores)
    return f"{seeds} seed{'' if seeds == '1' else 's'}, {questions} question{'' if questions == '1' else 's'}"


def _range(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def _score_row(
    score: Score, seeds: Mapping[int, float], run: Named, accuracies: charts.Scale, differences: charts.Scale | None
) -> ScoreRow:
    low, high = _spread(score)
    accuracy = percent_text(score.accuracy)
    single = tuple(seeds.values()) if len(seeds) > 1 else ()
    title = f"{accuracy} percent" + (f"; by seed {', '.join(f'{100 * one:.1f}' for one in single)}" if single else "")
    whisker = charts.Whisker(mean=score.accuracy.mean, low=low, high=high, points=single)
    drawn = accuracy, charts.strip(title, accuracies, whisker, style=run.style)
    if differences is None:
        return run, drawn, None
    difference, interval = difference_text(score.difference)
    one = score.difference
    compared = None if one is None else charts.Whisker(mean=one.mean, low=one.low, high=one.high)
    title = f"{difference} points, 95% interval {interval}" if one else "not compared"
    return run, drawn, (difference, interval, charts.strip(title, differences, compared, style=run.style, zero=True))


def _dropped_table(figures: Figures, runs: Mapping[str, Named]) -> Table | None:
    """Why questions have no record, a row for each reason; runs over the same data stand as one."""
    columns: dict[str, tuple[Dropped, list[str]]] = {}
    for run in figures.runs:
        if run.dropped is not None:
            columns.setdefault(repr(run.dropped), (run.dropped, []))[1].append(runs[run.name].short)
    if not columns:
        return None
    found = [one for one, _ in columns.values()]
    reasons = dict.fromkeys((stage, reason) for one in found for stage in one.reasons for reason in one.reasons[stage])
    rows = [
        ("training questions", *(f"{one.questions:,}" for one in found)),
        *(
            (f"{stage}: {reason}", *(f"{one.reasons.get(stage, {}).get(reason, 0):,}" for one in found))
            for stage, reason in reasons
        ),
        ("records to learn from", *(f"{one.kept:,}" for one in found)),
    ]
    headings = [_some(names, len(runs)) for _, names in columns.values()]
    shared = any(one.whole_spaces for one in found)
    caption = "Of the whole space in the store, which other runs may share" if shared else "Questions and records"
    return Table(caption=caption, headings=("", *headings), rows=rows)


def _some(names: Sequence[str], of: int) -> str:
    """Names of a few runs, or how many they are."""
    if len(names) == of:
        return "all runs" if of > 1 else names[0]
    return ", ".join(names) if len(names) <= SIDE_BY_SIDE else f"{names[0]} and {len(names) - 1} others"


def _losses(figures: Figures, runs: Mapping[str, Named]) -> Iterator[Figure]:
    """A drawing for each part of the loss, with a curve for each run that has it."""
    trained = [(runs[run.name], run.training) for run in figures.runs if run.training]
    for name in dict.fromkeys(name for _, training in trained for name in training.losses):
        curves = [(run, training.losses[name]) for run, training in trained if name in training.losses]
        yield _curves(LOSS_TITLES.get(name, name), [(run, one) for run, one in curves if one.steps])
    if looks := [(run, training.dev) for run, training in trained if training.dev]:
        yield _curves("Accuracy on dev, mean of both prompts", looks)


def _curves(title: str, curves: Sequence[tuple[Named, Curve]]) -> Figure:
    banded = len(curves) <= BANDED_RUNS
    lines = [
        charts.Line(
            name=run.whole,
            x=one.steps,
            y=one.mean,
            low=one.low if banded and one.students > 1 else (),
            high=one.high if banded and one.students > 1 else (),
            style=run.style,
        )
        for run, one in curves
    ]
    rows = [(run.short, *_quarters(one)) for run, one in curves]
    return Figure(
        title=title,
        drawing=charts.line_chart(title, lines, x_label="optimizer step"),
        table=Table(caption="Mean over seeds along training", headings=("run", *QUARTERS, "lowest"), rows=rows),
    )


def _quarters(one: Curve) -> Iterator[str]:
    """The value at the beginning, at each quarter of the points, and the lowest."""
    last = len(one.mean) - 1
    for quarter in range(5):
        yield f"{one.mean[round(last * quarter / 4)]:.4g}"
    yield f"{min(one.mean):.4g}"


def _layers(run: RunFigures) -> list[Figure]:
    """Drawings of the layers of one run."""
    figures = []
    if run.teacher:
        figures.append(_spread_figure("Teacher's layers", run.teacher, "s1"))
    if run.student and run.student.spread:
        figures.append(_spread_figure("Student's layers", run.student, "s2"))
    if run.student and run.student.over_training:
        figures.append(_over_training(run.student.over_training))
    return figures


def _spread_figure(title: str, layers: Layers, style: str) -> Figure:
    boxes = {str(number): one for number, one in enumerate(layers.spread, start=1)}
    columns = {"5%": "p5", "25%": "p25", "median": "median", "75%": "p75", "95%": "p95", "mean": "mean"}
    rows = [(name, *(f"{getattr(one, each):.3f}" for each in columns.values())) for name, one in boxes.items()]
    whole = f"{title}: weight of each over records"
    return Figure(
        title=title,
        drawing=charts.box_chart(whole, boxes, x_label="layer", reference=1 / len(boxes), style=style),
        table=Table(caption=title, headings=("layer", *columns), rows=rows),
        note=f"{layers.records:,} records",
    )


def _over_training(curves: Sequence[Curve]) -> Figure:
    """The student's layers along training; those that weigh most in the end have colours and names."""
    heaviest = sorted(range(len(curves)), key=lambda number: -curves[number].mean[-1])[:NAMED_LAYERS]
    styles = {number: charts.series_style(place) for place, number in enumerate(sorted(heaviest))}
    order = sorted(range(len(curves)), key=lambda number: number in styles)  # the named ones on top
    lines = [
        charts.Line(
            name=f"layer {number + 1}",
            x=curves[number].steps,
            y=curves[number].mean,
            style=styles.get(number, "s0 d1"),
            label=f"layer {number + 1}" if number in styles else "",
        )
        for number in order
        if curves[number].steps
    ]
    rows = [(str(number), *_quarters(one)) for number, one in enumerate(curves, start=1) if one.steps]
    return Figure(
        title="Student over training",
        drawing=charts.line_chart("Student's layers over training", lines, x_label="optimizer step", floor=0.0),
        table=Table(caption="Mean over seeds and batches", headings=("layer", *QUARTERS, "lowest"), rows=rows),
        note=f"{curves[0].students} seed{'' if curves[0].students == 1 else 's'}",
    )


def _stage_rows(figures: Figures, runs: Mapping[str, Named]) -> Iterator[tuple[Named, StageTotal, Markup, list[str]]]:
    """Stage by stage what it took for each run: its time drawn, and what stands in the row's other cells."""
    found = [(runs[each.name], total) for each in figures.runs for total in each.stages]
    longest = max((total.seconds for _, total in found), default=0.0) or 1.0
    for run, total in sorted(found, key=lambda one: STAGES.index(one[1].stage)):
        time = duration(total.seconds)
        processor = duration(total.cpu_seconds) if total.cpu_seconds else ""
        sizes = (total.peak_bytes, total.peak_gpu_bytes, total.bytes_grown)
        cells = [time, processor, *(binary_size(size) if size else "" for size in sizes), _outcomes(total)]
        drawn = charts.bar(f"{run.short}, {total.stage}: {time}", total.seconds / longest, run.style)
        yield run, total, drawn, cells


def _outcomes(total: StageTotal) -> str:
    """How executions ended, where it is worth a word."""
    if total.executions == 1 and set(total.outcomes) == {"done"}:
        return ""
    return ", ".join(f"{count} {outcome}" for outcome, count in total.outcomes.items())


def _executions_table(run: RunFigures) -> Table:
    """What was executed for a run, newest first."""
    shown = sorted(run.executions, key=lambda one: one.started, reverse=True)[:LISTED_EXECUTIONS]
    more = len(run.executions) - len(shown)
    rows = [
        (
            f"{one.stage}, shard {one.shard}" if one.shard else one.stage,
            one.started,
            duration(one.seconds),
            f"{one.units:,}",
            one.outcome,
            " ".join(one.command),
        )
        for one in shown
    ]
    return Table(
        caption="Newest first" + (f"; {more:,} earlier ones are in provenance.json" if more else ""),
        headings=("stage", "started", "time", "units", "outcome", "command"),
        rows=rows,
        numbers=False,
    )
