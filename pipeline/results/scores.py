"""Scores of runs, from what their students answered and how likely they find what is right: what `compare` shows.

In: evaluation folders. Out: one `Score` for each run, data set and prompt, with its accuracy and, where it was
measured, its log-probability, each with a `PairedDifference` to the run that is the base, over the seeds and questions
that both have; and the tables of these, for people, for machines and for documents. The folder of a matrix stands for
all its points.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from cache.durable import replace_file
from data.errors import ConfigError, DamagedCacheError, MissingRecordsError
from pipeline.console.tables import print_json, print_rows
from pipeline.results.folder import EvaluationFolder, RunFolder
from pipeline.results.grid import Grid, grid
from pipeline.results.likelihoods import LikelihoodScore, TextLikelihoods, likelihood_score, likelihoods
from pipeline.results.predictions import by_group, read_predictions
from stages.figures.statistics import Accuracy, PairedDifference, SeedMean, accuracy, paired_bootstrap

Group = tuple[str, str]
"""Data set and prompt."""
JUDGED = {"predict": "the gold answer (predict)", "explain": "the reference rationale (explain)"}
"""What students should have written by each prompt."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Accuracy of one run on one data set by one prompt; `difference` is to the base, None for that one itself."""

    run: str
    dataset: str
    prompt: str
    accuracy: Accuracy
    difference: PairedDifference | None = None
    base: str | None = None
    """The run that differences are to."""
    likelihood: LikelihoodScore | None = None
    """None where it was not measured."""


def scores_of(run: str, evaluation: EvaluationFolder) -> list[Score]:
    """The accuracies of one run; `MissingRecordsError` where it has not been evaluated."""
    return compare({run: evaluation})


def compare(evaluations: Mapping[str, EvaluationFolder], base: str | None = None) -> list[Score]:
    """The accuracies of several runs, by name, each with its paired difference to `base`, which is the first by itself.

    A prompt that a run was not asked by has no score there.
    """
    found = {run: _right_or_wrong(run, folder) for run, folder in evaluations.items()}
    likely = {run: likelihoods(folder.likelihoods()) for run, folder in evaluations.items()}
    first = next(iter(found)) if base is None else base
    groups = dict.fromkeys(group for groups in found.values() for group in groups)
    return [
        _score(
            run, group, (own[group], likely[run].get(group)), (first, found[first].get(group), likely[first].get(group))
        )
        for group in groups
        for run, own in found.items()
        if group in own
    ]


def accuracies_by_seed(run: str, evaluation: EvaluationFolder) -> dict[Group, dict[int, float]]:
    """The accuracy of each seed's student of a run, over the questions that `compare` counts."""
    return {
        group: dict(zip(right.seeds, right.values.mean(axis=1).tolist(), strict=True))
        for group, right in _right_or_wrong(run, evaluation).items()
    }


def write_scores(path: Path, scores: Sequence[Score]) -> None:
    """Write accuracies as JSON."""
    replace_file(path, json.dumps([asdict(score) for score in scores], indent=1).encode())


def evaluation_folders(runs: Sequence[str], root: Path) -> dict[str, EvaluationFolder]:
    """The evaluation folders of `runs`, each the path of a run's folder or its name below `root`.

    A matrix stands for its points, as `matrix/point`, as far as they have been evaluated.
    """
    found = run_folders(runs, root)
    of_matrix: set[Path] = set()
    for run in runs:
        folder = folder_of(run, root)
        points = [folder / name for name in points_of(folder)]
        if points and not any(RunFolder(point).evaluation().seeds() for point in points):
            raise MissingRecordsError(f"run {run}: no point of it is evaluated; go on with: molsaki run CONFIG")
        of_matrix.update(points)
    evaluations = {name: RunFolder(folder).evaluation() for name, folder in found.items()}
    return {name: place for name, place in evaluations.items() if found[name] not in of_matrix or place.seeds()}


def run_folders(runs: Sequence[str], root: Path) -> dict[str, Path]:
    """The folders of `runs` by name, each the path of a run's folder or its name below `root`.

    A matrix stands for all its points, as `matrix/point`, evaluated or not.
    """
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for run in runs:
        folder = folder_of(run, root)
        name = folder.resolve().name
        points = {f"{name}/{point}": folder / point for point in points_of(folder)}
        for each, place in (points or {name: folder}).items():
            if place.resolve() in seen:
                raise ConfigError(f"run {run}: named twice")
            seen.add(place.resolve())
            found[each if each not in found else str(place)] = place
    return found


def points_of(folder: Path) -> tuple[str, ...]:
    """The names of the points of the matrix in `folder`, in its order; none where it is the folder of one run."""
    path = RunFolder(folder).matrix
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return ()
    except ValueError as error:
        raise DamagedCacheError(f"{path}: does not decode ({error}); `molsaki run CONFIG` writes it again") from error


def unevaluated_points(runs: Sequence[str], root: Path) -> list[str]:
    """The points of the matrices among `runs` that have no scores yet."""
    folders = [folder_of(run, root) for run in runs]
    points = [(folder / point, point) for folder in folders for point in points_of(folder)]
    return [point for folder, point in points if not RunFolder(folder).evaluation().seeds()]


def folder_of(run: str, root: Path) -> Path:
    """The folder of a run that is named by its path, or by its name below `root`."""
    folder = root / run if (root / run).is_dir() else Path(run)  # a name first: other folders may be called like runs
    if not folder.is_dir():
        raise ConfigError(f"run {run}: neither a folder nor a run in {root}")
    return folder


def base_of(name: str, runs: Sequence[str]) -> str:
    """The one of `runs` that `name` means: all of a run's name, its end, or its short name in the table."""
    short = short_names(runs)
    for known in ({run: run for run in runs}, short, {run: run.rpartition("/")[2] for run in runs}):
        found = [run for run in runs if known[run] == name]
        if len(found) == 1:
            return found[0]
    raise ConfigError(f"--base {name}: expected one of {', '.join(short.values())}")


def short_names(runs: Sequence[str]) -> dict[str, str]:
    """Names for a table, in which points of matrices show only what varies: `study/objective=dss` is `dss`.

    A setting that has one value wherever it stands is left out as long as names stay apart, then one that all points
    have alike; where not even that leaves a name for each, they are shown whole.
    """
    settings = {run: run.rpartition("/")[2].split(",") for run in runs if "=" in run.rpartition("/")[2]}
    parts = dict.fromkeys(part for found in settings.values() for part in found)
    keys = Counter(part.partition("=")[0] for part in parts)
    single = {part for part in parts if keys[part.partition("=")[0]] == 1}
    shared = {part for part in single if all(part in found for found in settings.values())}
    several = len({run.rpartition("/")[0] for run in settings}) > 1
    for left_out in (single, shared if len(settings) == len(runs) else set(), set()):
        said = {
            run: ", ".join(_said(part) for part in found if part not in left_out) for run, found in settings.items()
        }
        prefix = {run: f"{run.rpartition('/')[0]}: " if several else "" for run in settings}
        short = {run: prefix[run] + said[run] if run in settings else run for run in runs}
        if len(set(short.values())) == len(runs) and all(said.values()):
            return short
    return {run: run for run in runs}


def print_scores(scores: Sequence[Score], *, as_json: bool) -> None:
    """Print accuracies in percent, below them log-probabilities, and paired differences where there is a base."""
    if as_json:
        print_json(scores)
        return
    for number, found in enumerate(score_tables(scores)):
        if number:
            click.echo()
        print_rows(found.headings, found.rows)
        if found.caption:
            click.echo(found.caption)


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Scores as text; `caption` says what is the same for all rows, which then has no column."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str

    def markdown(self) -> str:
        """The table for a Markdown document."""
        lines = [self.headings, tuple("---" for _ in self.headings), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{self.caption}\n"


def score_tables(scores: Sequence[Score]) -> list[ScoreTable]:
    """The table of accuracies and, where any was measured, that of log-probabilities."""
    likely = likelihood_table(scores)
    return [score_table(scores), *([] if likely is None else [likely])]


def score_table(scores: Sequence[Score]) -> ScoreTable:
    """The accuracies of some runs; points of a matrix show only what varies."""
    columns = {
        **_names(scores, scores),
        "accuracy": [percent_text(score.accuracy) for score in scores],
        "seeds": [f"{score.accuracy.seeds}" for score in scores],
        "questions": [f"{score.accuracy.questions:,}" for score in scores],
    }
    compared = [score for score in scores if score.difference]
    return _table(columns, [difference_text(score.difference) for score in scores], _bases(scores, compared))


def likelihood_table(scores: Sequence[Score]) -> ScoreTable | None:
    """The log-probabilities of the same runs; None where none was measured."""
    found = [(score, score.likelihood) for score in scores if score.likelihood]
    if not found:
        return None
    columns = {
        **_names(scores, [score for score, _ in found]),
        "log-probability": [nats_text(one.per_token) for _, one in found],
        "seeds": [f"{one.per_token.seeds}" for _, one in found],
        "questions": [f"{one.per_token.questions:,}" for _, one in found],
    }
    prompts = dict.fromkeys(score.prompt for score, _ in found)
    said = [f"log-probability per token, in nats, of {' and '.join(JUDGED[prompt] for prompt in prompts)}"]
    said.append("higher, that is, closer to 0, is better")
    if any(one.difference and one.unit == "byte" for _, one in found):
        said.append("differences between students whose tokenizers differ are per byte of the text")
    if most := max(one.left_out for _, one in found):
        said.append(f"up to {most:,} questions are left out, as too long for a student")
    bases = _bases(scores, [score for score, one in found if one.difference])
    return _table(columns, [nats_difference_text(one) for _, one in found], bases, said)


def _names(every: Sequence[Score], shown: Sequence[Score]) -> dict[str, list[str]]:
    """The columns that say which score it is."""
    names = short_names(list(dict.fromkeys(score.run for score in every)))
    return {
        "run": [names[score.run] for score in shown],
        "data set": [score.dataset for score in shown],
        "prompt": [score.prompt for score in shown],
    }


def _bases(every: Sequence[Score], compared: Sequence[Score]) -> list[str]:
    """The short names of what differences are to."""
    names = short_names(list(dict.fromkeys(score.run for score in every)))
    return list(dict.fromkeys(names[score.base] for score in compared if score.base))


def _table(
    columns: dict[str, list[str]],
    differences: Sequence[tuple[str, str]],
    bases: Sequence[str],
    said: Sequence[str] = (),
) -> ScoreTable:
    """A table of these columns; with a base also of differences, and without columns in which all is alike."""
    parts = list(said)
    if bases:
        columns["difference"] = [difference for difference, _ in differences]
        columns["95% interval"] = [interval for _, interval in differences]
        alike = [name for name in ("data set", "seeds", "questions") if len(set(columns[name])) == 1]
        parts += [f"{name} {columns.pop(name)[0]}" for name in alike]
        parts.append(f"difference to {' or '.join(bases)}, of the same seeds and questions")
    return ScoreTable(
        headings=tuple(columns), rows=tuple(zip(*columns.values(), strict=True)), caption="; ".join(parts)
    )


def percent_text(accuracy: Accuracy) -> str:
    """Mean and, of several seeds, standard deviation."""
    spread = f" ± {100 * accuracy.deviation:.1f}" if accuracy.seeds > 1 else ""
    return f"{100 * accuracy.mean:.1f}{spread}"


def difference_text(difference: PairedDifference | None) -> tuple[str, str]:
    """Mean and interval of a difference in percent; empty where there is none."""
    if difference is None:
        return "", ""
    return f"{100 * difference.mean:+.1f}", f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"


def nats_text(found: SeedMean) -> str:
    """Mean and, of several seeds, standard deviation."""
    return f"{found.mean:.3f}" + (f" ± {found.deviation:.3f}" if found.seeds > 1 else "")


def nats_difference_text(found: LikelihoodScore) -> tuple[str, str]:
    """Mean and interval of a difference in nats per token, or per byte, which is said; empty where there is none."""
    if found.difference is None:
        return "", ""
    mean, low, high = found.difference.mean, found.difference.low, found.difference.high
    return f"{mean:+.3f}" + (" a byte" if found.unit == "byte" else ""), f"{low:+.3f} to {high:+.3f}"


def _said(part: str) -> str:
    """`beta=3` as it is; what objective and alignment are called says enough, and a term's name of its settings."""
    key, _, value = part.partition("=")
    return value if key in {"objective", "alignment"} else part.removeprefix("terms.")


def _right_or_wrong(run: str, evaluation: EvaluationFolder) -> dict[Group, Grid[str]]:
    """Grids of seeds × questions for each data set and prompt; only questions that every seed answered."""
    if not (files := evaluation.seeds()):
        raise MissingRecordsError(
            f"run {run}: no predictions in {evaluation.path}; make them with: molsaki evaluate CONFIG"
        )
    groups = by_group(read_predictions(files.values()))
    return {group: grid(rows["seed"], rows["question_id"], rows["correct"]) for group, rows in groups}


def _score(
    run: str,
    group: Group,
    own: tuple[Grid[str], TextLikelihoods | None],
    base: tuple[str, Grid[str] | None, TextLikelihoods | None],
) -> Score:
    """What a run scores by what it has of a group, and how far that is from what the base, named first, has of it."""
    (right, texts), (first, base_right, base_texts) = own, base
    if run == first:
        base_right = base_texts = None
    difference = None if base_right is None else _difference(base_right, right)
    likelihood = None if texts is None else likelihood_score(texts, base_texts)
    compared = difference or (likelihood and likelihood.difference)
    return Score(
        run=run,
        dataset=group[0],
        prompt=group[1],
        accuracy=accuracy(right.values),
        difference=difference,
        base=first if compared else None,
        likelihood=likelihood,
    )


def _difference(base: Grid[str], other: Grid[str]) -> PairedDifference | None:
    """Paired over what both have; None where they share no seed or no question."""
    seeds, questions = base.common(other)
    if not seeds or not questions:
        return None
    return paired_bootstrap(base.at(seeds, questions), other.at(seeds, questions))
