"""What the folder of a run says about it, read once: what `molsaki report` shows.

In: run folders. Out: one `RunFigures` each: accuracies as `compare` has them, curves over training, spreads of layer
weights over records, time and memory by stage, configuration, and where everything came from. A part that is not there
is None or empty and said in `missing`; nothing but a damaged file is an error. No model is loaded and torch is not
imported. Only why questions were dropped stands elsewhere, in the store, and is read where that is there.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from cache.rationales import KEPT, PREFERENCE, RationaleStore
from cache.spaces import Space, dropped_records, is_space
from data.errors import ConfigError, MissingRecordsError, MolsakiError
from pipeline.config.document import Tree, read_document
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.results.folder import RunFolder
from pipeline.results.scores import Group, Score, accuracies_by_seed, compare, run_folders
from pipeline.results.students import TrainedStudent, trained_students
from pipeline.run.inputs import Inputs
from pipeline.run.plan import STAGES
from pipeline.run.provenance import StageRecord, read_provenance
from stages.attention.select import select_examples
from stages.figures.statistics import Curve, Spread, curve, spread_by_column
from stages.student.summary import LAYER_WEIGHTS, SUMMARY

ALL_POINTS = 30_000
"""Of all curves of a report together; the more curves, the fewer points each has."""
FEWEST_POINTS, MOST_POINTS = 24, 160
FOLDER_DIGITS = 16
"""Digits of a fingerprint in the name of a space's folder."""
NO_ORIGIN = f"{SUMMARY} of an earlier version: the revisions of teacher and student are not known"
NO_LAYERS = f"no {LAYER_WEIGHTS} beside the students (an earlier version, or FSDP): no layer weights by record"

Sources = Sequence[tuple[Config, str]]
"""Sources of rationales, each as a configuration, with the fingerprint of its space."""


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Counts by stage and reason; `kept` counts records. `whole_spaces` where other runs' questions are among them."""

    questions: int
    kept: int
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    whole_spaces: bool = False


@dataclass(frozen=True, kw_only=True)
class StageTotal:
    """What all executions of one stage for one run took together; peaks are those of the largest."""

    stage: str
    executions: int
    seconds: float
    cpu_seconds: float
    units: int
    peak_bytes: int
    peak_gpu_bytes: int
    bytes_grown: int
    outcomes: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Layers:
    """How much each layer counted: over the records, and for students over training as well."""

    spread: tuple[Spread, ...]
    records: int
    over_training: tuple[Curve, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the students of a run logged: losses by name, and accuracy on dev questions where training looked at it."""

    seeds: tuple[int, ...]
    records: int
    steps: int
    losses: Mapping[str, Curve]
    dev: Curve | None


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """All that is known of one run; `missing` says what is not."""

    name: str
    folder: Path
    config: Mapping[str, Tree]
    facts: Mapping[str, str]
    training: Training | None
    teacher: Layers | None
    student: Layers | None
    stages: tuple[StageTotal, ...]
    executions: tuple[StageRecord, ...]
    dropped: Dropped | None
    accuracies: Mapping[Group, Mapping[int, float]]
    """Of each seed, by data set and prompt."""
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Everything in a report: the runs, and the scores of those that are evaluated, as `molsaki compare` has them."""

    runs: tuple[RunFigures, ...]
    scores: tuple[Score, ...]


def read_figures(runs: Sequence[str], root: Path, base: str | None = None) -> Figures:
    """Read all runs, a matrix as its points; `base` is the one that differences are to, the first by itself.

    Raises `ConfigError` for a folder that is no run's, `DamagedCacheError` for a file that does not decode.
    """
    folders = run_folders(runs, root)
    for name, folder in folders.items():
        if not (beside := RunFolder(folder)).holds_run():
            expected = f"{beside.config.name}, {beside.all_students.name}/ or {beside.evaluation().path.name}/"
            raise ConfigError(f"run {name}: {folder} holds no run; expected {expected}")
    evaluations = {name: RunFolder(folder).evaluation() for name, folder in folders.items()}
    evaluated = {name: evaluation for name, evaluation in evaluations.items() if evaluation.seeds()}
    students = {name: trained_students(folder) for name, folder in folders.items()}
    points = _points_of_a_curve(students.values())
    return Figures(
        runs=tuple(_read_run(name, folder, students[name], points) for name, folder in folders.items()),
        scores=tuple(compare(evaluated, base if base in evaluated else None)) if evaluated else (),
    )


def _points_of_a_curve(runs: Iterable[Sequence[TrainedStudent]]) -> int:
    """How many points each curve may have, that all of them together stay few."""
    curves = sum(len(students[0].names) + students[0].layers for students in runs if students)
    return max(FEWEST_POINTS, min(MOST_POINTS, ALL_POINTS // max(curves, 1)))


def _read_run(name: str, folder: Path, students: Sequence[TrainedStudent], points: int) -> RunFigures:
    config = _config(folder)
    executions = read_provenance(folder).stages
    fingerprints = _fingerprints(executions, students)
    teacher, student = _layers(students, points)
    evaluation = RunFolder(folder).evaluation()
    why_dropped, not_known = _dropped(folder, fingerprints, students)
    accuracies = accuracies_by_seed(name, evaluation) if evaluation.seeds() else {}
    left = _seeds_left(config, students)
    missing = {
        f"no {RunFolder(folder).config.name}: what the run was asked for is not known": not config,
        "no student is trained yet": not students,
        f"not trained yet: seed {_ranges(left)}": left,
        "no student is evaluated yet": not accuracies,
        NO_ORIGIN: any("teacher" not in student.summary for student in students),
        NO_LAYERS: teacher is None and any(student.layers for student in students),
        not_known: not_known,
        "no provenance: time and memory are not known": not executions,
    }
    return RunFigures(
        name=name,
        folder=folder,
        config=config,
        facts=_facts(config, students, executions, fingerprints),
        training=_training(students, points),
        teacher=teacher,
        student=student,
        stages=tuple(_totals(executions)),
        executions=executions,
        dropped=why_dropped,
        accuracies=accuracies,
        missing=tuple(line for line, holds in missing.items() if holds),
    )


def _config(folder: Path) -> Mapping[str, Tree]:
    """The resolved configuration as it was saved; empty where it was not, as when evaluations were copied alone."""
    path = RunFolder(folder).config
    return read_document(path).tree if path.is_file() else {}


def _seeds_left(config: Mapping[str, Tree], students: Sequence[TrainedStudent]) -> list[int]:
    """The seeds that are still to be trained, once some are."""
    seeds, there = _section(config, "training").get("seeds"), {student.seed for student in students}
    asked = seeds if isinstance(seeds, list) else []
    return [seed for seed in asked if isinstance(seed, int) and seed not in there] if there else []


def _training(students: Sequence[TrainedStudent], points: int) -> Training | None:
    if not students:
        return None
    names = dict.fromkeys(name for student in students for name in student.names)
    looks = curve([student.looks for student in students], points)
    return Training(
        seeds=tuple(student.seed for student in students),
        records=max(int(student.summary.get("records", 0)) for student in students),
        steps=max(int(student.summary.get("steps", 0)) for student in students),
        losses={name: curve([student.values(name) for student in students], points) for name in names},
        dev=looks if looks.steps else None,
    )


def _layers(students: Sequence[TrainedStudent], points: int) -> tuple[Layers | None, Layers | None]:
    """Teacher's and student's layers: over the records of all seeds' students, and over training."""
    layers = max((student.layers for student in students), default=0)
    training = tuple(curve([one.layer(number) for one in students if one.layers], points) for number in range(layers))
    tables = [student.layer_weights for student in students if student.layer_weights is not None]
    teacher = [table["teacher"] for table in tables if table["teacher"].size][:1]  # the same for every seed
    weights = [table["student"] for table in tables if table["student"].size]
    student = Layers(
        spread=spread_by_column(np.concatenate(weights)) if weights else (),
        records=sum(map(len, weights)),
        over_training=training,
    )
    return (
        Layers(spread=spread_by_column(teacher[0]), records=len(teacher[0])) if teacher else None,
        student if weights or training else None,
    )


def _totals(executions: Sequence[StageRecord]) -> Iterator[StageTotal]:
    for stage in STAGES:
        if found := [one for one in executions if one.stage == stage]:
            yield StageTotal(
                stage=stage,
                executions=len(found),
                seconds=math.fsum(one.seconds for one in found),
                cpu_seconds=math.fsum(one.cpu_seconds for one in found),
                units=sum(one.units for one in found),
                peak_bytes=max(one.peak_bytes for one in found),
                peak_gpu_bytes=max(one.peak_gpu_bytes for one in found),
                bytes_grown=sum(one.bytes_grown for one in found),
                outcomes=dict(Counter(one.outcome for one in found)),
            )


def _fingerprints(executions: Sequence[StageRecord], students: Sequence[TrainedStudent]) -> dict[str, str]:
    """What results are filed under: as the students say, then as the latest execution of each stage."""
    found: dict[str, str] = {}
    for student in students:
        said = {
            "rationales": "rationales",
            "attention": "attention",
            "soft-labels": "soft_labels",
            "students": "fingerprint",
        }
        found |= {kind: str(student.summary[key]) for kind, key in said.items() if student.summary.get(key)}
    for execution in executions:
        found |= execution.fingerprints
    return found


def _sources(
    folder: Path, config: Config, fingerprints: Mapping[str, str], students: Sequence[TrainedStudent]
) -> Sources:
    """The run's sources of rationales: as the students say where there are several, else as their own executions do."""
    configs = (config, *config.sources())
    said = next((student.summary["sources"] for student in students if student.summary.get("sources")), None)
    if said is not None and len(said) == len(configs):
        return list(zip(configs, map(str, said), strict=True))
    own = fingerprints.get("rationales", "")
    further = [_fingerprints(read_provenance(folder / each.name).stages, ()) for each in config.sources()]
    return list(zip(configs, (own, *(each.get("rationales", "") for each in further)), strict=True))


def _dropped(
    folder: Path, fingerprints: Mapping[str, str], students: Sequence[TrainedStudent]
) -> tuple[Dropped | None, str]:
    """Why questions were dropped, or why that is not known."""
    config = RunFolder(folder).config
    if not config.is_file():
        return None, ""
    try:
        asked = load_config(config)
        return dropped(asked, _sources(folder, asked, fingerprints, students), fingerprints), ""
    except (MolsakiError, OSError) as error:  # the store and the data belong to others, and may be gone or newer
        return None, f"why questions were dropped is not known: {error}"


def _facts(
    config: Mapping[str, Tree],
    students: Sequence[TrainedStudent],
    executions: Sequence[StageRecord],
    fingerprints: Mapping[str, str],
) -> dict[str, str]:
    """Where the run's numbers came from, for people."""
    summary = students[0].summary if students else {}
    facts = {
        "teacher": _at(config, "teacher", "model") or _at(summary, "teacher", "model"),
        "teacher's revision": _at(summary, "teacher", "revision"),
        "student before training": _model(config) or _model(summary),
        "student's revision": _at(summary, "student", "revision"),
        "objective": _pairs(summary.get("objective")) or _at(config, "objective", "name"),
        "training data": _named(_section(config, "data").get("train")) or _named(summary.get("data")),
        "test data": _named(_section(config, "data").get("test")),
        "records learned from": f"{summary['records']:,}" if summary.get("records") else "",
        "optimizer steps": f"{summary['steps']:,}" if summary.get("steps") else "",
        "seeds": _ranges([student.seed for student in students]),
        **{f"fingerprint of {name}": value for name, value in fingerprints.items()},
        "code": _each(_code(one) for one in executions),
        "libraries": _each(_libraries(one) for one in executions),
        "machine": _each(
            f"{one.environment.device}, {one.environment.cpus} cores, {one.environment.platform}" for one in executions
        ),
        "Python": _each(one.environment.python for one in executions),
        "worked on": _period(executions),
    }
    return {name: value for name, value in facts.items() if value}


def _section(config: Mapping[str, Tree], name: str) -> Mapping[str, Tree]:
    """What stands below a key; empty where nothing does."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _at(config: Mapping[str, Tree], section: str, key: str) -> str:
    return str(_section(config, section).get(key) or "")


def _model(config: Mapping[str, Tree]) -> str:
    """The student as it was named, with what its weights began as."""
    model, initialise = _at(config, "student", "model"), _at(config, "student", "initialise")
    named = f"{model}, {initialise} weights" if model and initialise else model
    layers = _at(config, "student", "layers")
    return f"{named}, the first {layers} layers" if layers else named


def _pairs(described: object) -> str:
    """`{"name": "molsaki", "beta": 10}` as `molsaki, beta 10`."""
    if not isinstance(described, dict):
        return ""
    rest = [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in described.items()]
    return ", ".join(rest).removeprefix("name ")


def _named(sources: object) -> str:
    return "; ".join(_source(one) for one in sources if isinstance(one, dict)) if isinstance(sources, list) else ""


def _source(source: Mapping[str, Tree]) -> str:
    """`svamp, split train, limit 250`: what was set of a source."""
    rest = [f"{key} {value}" for key, value in source.items() if key != "name" and value not in (None, 0, "")]
    return ", ".join((str(source.get("name", "")), *rest))


def _ranges(numbers: Sequence[int]) -> str:
    """`0 to 4, 7` of numbers that rise."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 2 else ", ".join(map(str, part)) for part in parts)


def _code(execution: StageRecord) -> str:
    commit = execution.environment.commit
    version = execution.environment.libraries.get("molsaki", "of an unknown version")
    return f"molsaki {version}" + (f" at {commit}" if commit else "")


def _libraries(execution: StageRecord) -> str:
    return ", ".join(f"{name} {one}" for name, one in execution.environment.libraries.items() if name != "molsaki")


def _each(values: Iterator[str]) -> str:
    """Different values, each once."""
    return "; ".join(dict.fromkeys(values))


def _period(executions: Sequence[StageRecord]) -> str:
    if not executions:
        return ""
    first = min(one.started for one in executions).replace("T", " ")[:16]
    last = max(one.ended for one in executions).replace("T", " ")[:16]
    return f"{first} to {last.removeprefix(first[:11])} UTC"


def dropped(config: Config, sources: Sources, fingerprints: Mapping[str, str]) -> Dropped:
    """Count what was left out of a run; `MissingRecordsError` where the store does not hold its rationales.

    `fingerprints` are those of what the teacher recorded over the rationales.
    """
    opened = [_space(config.store, "rationales", found) for _, found in sources]
    stores = [RationaleStore(space) for space in opened if space is not None]
    if len(stores) < len(sources):
        raise MissingRecordsError(f"the store {config.store} does not hold this run's rationales")
    spaces = {kind: _space(config.store, kind, fingerprints.get(kind, "")) for kind in ("attention", "soft-labels")}
    unreadable = {kind: dropped_records(space.commits()) for kind, space in spaces.items() if space is not None}
    if all(source.path is not None or source.name == "synthetic" for source in config.data.train):
        return _of_run(config, list(zip([source for source, _ in sources], stores, strict=True)), unreadable)
    return _of_spaces(stores, unreadable)


def _space(store: Path, kind: str, fingerprint: str) -> Space | None:
    """The space of that kind with a fingerprint, if there is one."""
    found = sorted((store / kind).glob(f"*-{fingerprint[:FOLDER_DIGITS]}")) if fingerprint else []
    return Space.open(found[0]) if found and is_space(found[0]) else None


def _of_run(
    config: Config, sources: Sequence[tuple[Config, RationaleStore]], unreadable: Mapping[str, Mapping[str, str]]
) -> Dropped:
    from stages.rationales.write import kept_rationales, plan_rationales

    questions, reasons, kept = Inputs(config).questions("train"), Counter[str](), []
    for source, store in sources:
        reasons += Counter(plan_rationales(questions, store.attempts(), source.rationales).dropped)
        kept += kept_rationales(questions, store, source.rationales)
    selection = select_examples(tuple(kept), config.attention)
    too_much = {
        kind: Counter(found[one.key] for one in selection.examples if one.key in found)
        for kind, found in unreadable.items()
    }
    left = sum(not any(one.key in found for found in unreadable.values()) for one in selection.examples)
    marked = Counter(selection.dropped) + too_much.get("attention", Counter())
    return Dropped(
        questions=len(questions), kept=left, reasons=_stages({**too_much, "rationales": reasons, "attention": marked})
    )


def _of_spaces(stores: Sequence[RationaleStore], unreadable: Mapping[str, Mapping[str, str]]) -> Dropped:
    """A question is kept with any kept rationale, else it counts by its latest attempt; its key words do not count."""
    outcomes: dict[str, str] = {}
    for attempt in chain.from_iterable(store.attempts().values() for store in stores):
        if attempt.phase in PREFERENCE and outcomes.get(attempt.key) != KEPT:
            outcomes[attempt.key] = attempt.outcome
    counts = Counter(outcomes.values())
    kept = counts.pop(KEPT, 0)
    by_stage = {kind: Counter(found.values()) for kind, found in unreadable.items()}
    lost = len(set().union(*unreadable.values()))
    return Dropped(
        questions=len(outcomes),
        kept=kept - lost,
        reasons=_stages({**by_stage, "rationales": counts}),
        whole_spaces=True,
    )


def _stages(counted: Mapping[str, Mapping[str, int]]) -> dict[str, Mapping[str, int]]:
    """Reasons of the stages that have some, most frequent first."""
    found = {stage: counted.get(stage) for stage in STAGES}
    return {stage: dict(Counter(reasons).most_common()) for stage, reasons in found.items() if reasons}
