"""What a command works on: a run, its points, and the stages of each as they are now.

In: a `Matrix` and the folder of its run. Out: points with their inputs and folders, and their stages, of which points
that ask for the same of stage one share what they share. A configuration without `matrix` is a run of one point, which
lies in the run's own folder.

With a shard, a process works on some of the students, the pairs of a point and a seed, dealt out in turn: pair number
k, counted point by point, belongs to shard k mod n. That is even to one pair, spreads the seeds of an expensive point
over all shards, and depends on the file alone, so that no pair is in two shards.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

from cache.durable import replace_file
from cache.fingerprints import JSON
from data.errors import ConfigError, MolsakiError
from pipeline.config.load import resolved_yaml
from pipeline.config.matrix import Matrix, Point
from pipeline.config.schema import Config
from pipeline.results.folder import RunFolder
from pipeline.run.inputs import Inputs, Split
from pipeline.run.plan import STAGE_ONE, STAGES, Stage, StageName, StagePlan, total_plan
from pipeline.run.soft_labels import SoftLabelStage
from pipeline.run.students import EvaluateStage, TrainStage, chosen_seeds
from pipeline.run.teacher import AttentionStage, RationaleStage, by_one_engine
from pipeline.run.united import UnitedRationales
from stages.engines.reuse import ReusedEngines
from stages.runtime.imports import importing
from stages.runtime.shard import Shard, chosen_shard
from stages.student.objective import objective_of


@dataclass(frozen=True, kw_only=True)
class PointRun(Point):
    """One point: its name and configuration, the folder that its own results go to, and what it reads."""

    folder: Path
    inputs: Inputs
    shard: Shard | None

    @property
    def log(self) -> Path:
        """Its log file."""
        return RunFolder(self.folder).log(self.shard)

    @property
    def config_file(self) -> Path:
        """The resolved configuration, saved with its results; it runs by itself."""
        return RunFolder(self.folder).config

    @cached_property
    def sources(self) -> "tuple[PointRun, ...]":
        """Its further sources of rationales, each a run of its own in a folder inside this one's."""
        found = []
        for config in self.config.sources():
            inputs = Inputs(config, alike=self.inputs)
            found.append(replace(self, config=config, folder=self.folder / config.name, inputs=inputs))
        return tuple(found)

    @property
    def reads_what_it_writes(self) -> bool:
        """Whether the engine that writes its rationales can record their attention as well."""
        return not self.is_source and self.has("attention") and by_one_engine(self.config)

    @property
    def is_source(self) -> bool:
        """Whether it is a further source of another one's rationales, after which it is named."""
        return self.config.name != self.name

    @property
    def stages(self) -> tuple[StageName, ...]:
        """The stages that it asks for, in order; an objective without attention needs none recorded."""
        objective = objective_of(self.config.objective)
        left_out: set[StageName] = set()
        if not objective.needs_attention:
            left_out.add("attention")
        if objective.soft_labels is None:
            left_out.add("soft-labels")
        if not self.config.data.test:
            left_out.add("evaluate")
        return tuple(name for name in STAGES if name not in left_out)

    def has(self, name: StageName) -> bool:
        """Whether a stage that was named is done for it; the only point of a run, which varies nothing, has all."""
        return not self.values or name in self.stages

    def save(self) -> None:
        """Write the resolved configuration, and those of further sources.

        A file is replaced at once, by however many processes do so.
        """
        for each in (self, *self.sources):
            each.folder.mkdir(parents=True, exist_ok=True)
            _write(each.config_file, resolved_yaml(each.config))


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a command works on; of it, `shard` is which students and `share` which questions and records.

    With `totals`, attention is also recorded where it is stored without what the steps look at in all; with
    `with_attention` the engine that writes rationales records it, too, and another one what that has left; for the only
    point of a run also as `attention_of` says, other configurations of these rationales.
    """

    matrix: Matrix
    folder: Path
    shard: Shard | None = None
    share: Shard | None = None
    totals: bool = False
    with_attention: bool = False
    attention_of: tuple[Config, ...] = ()

    @property
    def single(self) -> bool:
        """Whether the run has one point, whose folder is its own and whose errors are the run's."""
        return self.matrix.single

    @property
    def log(self) -> Path:
        """The run's own log; each point of a matrix has one too."""
        return RunFolder(self.folder).log(self.shard or self.share)

    @property
    def config_file(self) -> Path:
        """The run as it was asked for, every default filled in."""
        return RunFolder(self.folder).config

    @cached_property
    def points(self) -> tuple[PointRun, ...]:
        """The points, with what they read shared among them."""
        found: list[PointRun] = []
        for point in self.matrix.points:
            inputs = Inputs(point.config, alike=found[0].inputs if found else None)
            folder = self.folder if self.single else self.folder / point.name
            found.append(PointRun(**vars(point), folder=folder, inputs=inputs, shard=self.shard or self.share))
        return tuple(found)

    @property
    def stages(self) -> tuple[StageName, ...]:
        """All stages that any point has, in order."""
        return tuple(name for name in STAGES if any(name in point.stages for point in self.points))

    def beside(self, point: PointRun) -> list[PointRun]:
        """A point under each configuration of `attention_of`."""
        alike = point.inputs
        return [replace(point, config=config, inputs=Inputs(config, alike=alike)) for config in self.attention_of]

    def check(self, names: Sequence[StageName]) -> None:
        """Raise the first error that the stages of any point would meet in their inputs."""
        known = {stages.point.name for stages in look(self) if _is_known(stages)} if set(names) == {"train"} else set()
        for point in self.points:
            point.inputs.check([name for name in names if point.has(name)], known=point.name in known)
            for number, source in enumerate(point.sources):
                try:
                    source.inputs.check([name for name in names if name == "rationales"], known=point.name in known)
                except ConfigError as error:
                    if not str(error).startswith(("teacher.", "rationales.")):
                        raise
                    raise ConfigError(f"more_rationales.{number}.{error}") from error

    def check_tokenizers(self, names: Sequence[StageName]) -> None:
        """Raise `ConfigError` for the first tokenizer that a later stage would refuse, before any is paid for.

        Loads torch, as tokenizers do.
        """
        with importing():
            from stages.models.tokenizer import load_tokenizer

        asked = (point.inputs.tokenizers([name for name in names if point.has(name)]) for point in self.points)
        for model, revision, trusted in dict.fromkeys(chain.from_iterable(asked)):
            load_tokenizer(model, revision, trust_remote_code=trusted)

    def save(self) -> None:
        """Write the run and each point's configuration, which runs by itself; of a matrix also the list of points."""
        for point in self.points:
            point.save()
        if not self.single:
            _write(self.config_file, self.matrix.yaml())
            values = {point.name: dict(point.values) for point in self.matrix.points}
            _write(RunFolder(self.folder).matrix, json.dumps(values, indent=1, ensure_ascii=False))

    def shares(self, seeds: Sequence[int] = ()) -> list[tuple[int, ...]]:
        """For each point the seeds that this process works on: all, or those that its shard is dealt."""
        units = [
            (number, seed)
            for number, point in enumerate(self.matrix.points)
            for seed in chosen_seeds(point.config.training.seeds, seeds)
        ]
        if self.shard is not None:
            units = units[self.shard.index - 1 :: self.shard.count]
        return [tuple(seed for owner, seed in units if owner == number) for number in range(len(self.points))]


def _write(path: Path, text: str) -> None:
    """Let a file hold `text`; one that does already stays as it is, with its date."""
    if not path.is_file() or path.read_bytes() != text.encode():
        replace_file(path, text.encode())


@dataclass(frozen=True, kw_only=True)
class PointStages:
    """The stages of one point as they are now; those of stage one may be another point's too.

    `rationales`, `attention` and `soft_labels` are a share where this process has one; students learn from
    `all_attention` and `all_soft_labels`.
    """

    point: PointRun
    rationales: RationaleStage
    attention: AttentionStage
    all_attention: AttentionStage
    soft_labels: SoftLabelStage
    all_soft_labels: SoftLabelStage
    further: tuple["PointStages", ...] = ()
    """Those of its further sources of rationales, of which `rationales` alone is asked for."""

    def of(self, name: StageName) -> "tuple[PointStages, ...]":
        """Whose stages are done under a name: its own, and those of further sources."""
        return (self, *self.further) if name == "rationales" else (self,)

    @property
    def spaces(self) -> list[Path]:
        """The folders of all that is stored of it."""
        stored = {"attention": self.all_attention, "soft-labels": self.all_soft_labels}
        needed = [stage for name, stage in stored.items() if name in self.point.stages]
        return [stage.path for stage in (*(each.rationales for each in self.of("rationales")), *needed) if stage.begun]

    def open(
        self,
        name: StageName,
        seeds: Sequence[int] = (),
        split: Split = "test",
        engines: ReusedEngines | None = None,
    ) -> Stage:
        """One stage; the later two for some of the students only, who answer by `engines` that others have used."""
        if name == "rationales":
            return self.rationales
        if name == "attention":
            return self.attention
        if name == "soft-labels":
            return self.soft_labels
        train = TrainStage(self.point.inputs, self.point.folder, self.all_attention, seeds, self.all_soft_labels)
        return train if name == "train" else EvaluateStage(train, split, engines)


def look(run: Run) -> list[PointStages]:
    """Look at all points as they are now; points that agree on stage one share the stages, and so what these read.

    The stages remember what they saw, so look again after something was done.
    """
    rationales: dict[str, tuple[RationaleStage, RationaleStage]] = {}
    records: dict[str, tuple[AttentionStage, AttentionStage]] = {}
    read: set[str] = set()
    found: dict[str, PointStages] = {}
    points = []
    for point in run.points:
        written = []
        for source in (point, *point.sources):
            asked = _asked(source.config, "teacher", "rationales")
            if asked not in rationales:
                every = RationaleStage(source.inputs)
                rationales[asked] = every, every if run.share is None else RationaleStage(source.inputs, run.share)
            written.append((source, *rationales[asked]))
        whole = _asked(point.config, "teacher", "rationales", "more_rationales", "attention")
        if whole not in records:
            united = _united([every for _, every, _ in written])
            seen = AttentionStage(point.inputs, united)
            plain = run.share is None and not run.totals
            attention = seen if plain else AttentionStage(point.inputs, united, run.share, totals=run.totals)
            records[whole] = seen, attention
        seen, attention = records[whole]
        if run.with_attention and point.reads_what_it_writes and whole not in read:
            read.add(whole)
            written[0][2].reading += [partial(_of_own_questions, run, each) for each in (point, *run.beside(point))]
        labelled = json.dumps([whole, *_labelling(point.config)])
        if labelled not in found:
            labels = SoftLabelStage(point.inputs, seen)
            own_labels = labels if run.share is None else SoftLabelStage(point.inputs, seen, run.share)
            if {"attention", "soft-labels"} <= set(point.stages) and attention.beside is None:
                attention.beside = own_labels.beside_attention
            found[labelled] = PointStages(
                point=point,
                rationales=written[0][2],
                attention=attention,
                all_attention=seen,
                soft_labels=own_labels,
                all_soft_labels=labels,
            )
        stages = replace(found[labelled], point=point)
        further = [replace(stages, point=source, rationales=own) for source, _, own in written[1:]]
        points.append(replace(stages, further=tuple(further)))
    return points


def _of_own_questions(run: Run, point: PointRun) -> AttentionStage:
    """The attention of what a process's own questions gave."""
    sources = [RationaleStage(source.inputs, run.share) for source in (point, *point.sources)]
    return AttentionStage(point.inputs, _united(sources))


def _united(sources: Sequence[RationaleStage]) -> RationaleStage | UnitedRationales:
    """The rationales of one source, or of several as those of one."""
    return sources[0] if len(sources) == 1 else UnitedRationales(sources)


def _asked(config: Config, *sections: str) -> str:
    """What is asked of stage one, as a text: equal for points that share it."""
    values = config.model_dump(mode="json", include={"store", "data", *sections})
    return json.dumps({**values, "data": values["data"]["train"]}, sort_keys=True)


def _labelling(config: Config) -> list[JSON]:
    """What soft labels depend on beside their records; nothing where the objective needs none."""
    term = objective_of(config.objective).soft_labels
    if term is None:
        return []
    return [config.model_dump(mode="json")["soft_labels"], term.match, term.temperature]


def require_one_engine(run: Run) -> None:
    """Raise `ConfigError` for points whose rationales and attention do not come from one engine.

    Those of a matrix whose objective needs no attention are left alone, unless all are such.
    """
    asking = [point for point in run.points if point.has("attention")]
    for point in asking or run.points:
        if not point.reads_what_it_writes:
            raise ConfigError(
                f"--with-attention: {point.name} has no attention for the engine of its rationales to record: that "
                "takes rationales.engine vllm, attention.engine vllm, equal engine_arguments, and an objective with "
                "attention"
            )


def _is_known(stages: PointStages) -> bool:
    """Whether the records of a point are kept, so that its training questions need not be read."""
    try:
        return stages.all_attention.known
    except MolsakiError:  # which whoever needs what is wrong there will meet
        return False


def shared_work(points: Sequence[PointStages], name: StageName) -> list[tuple[Stage, list[PointStages]]]:
    """What stage one has to do under `name`, each piece once, with the points that need it."""
    pieces: dict[int, tuple[Stage, list[PointStages]]] = {}
    for stages in points:
        for each in stages.of(name) if stages.point.has(name) else ():
            stage = each.open(name)
            pieces.setdefault(id(stage), (stage, []))[1].append(each)
    return list(pieces.values())


def all_work(
    run: Run, points: Sequence[PointStages], name: StageName, seeds: Sequence[int] = (), split: Split = "test"
) -> list[tuple[Stage, list[PointStages]]]:
    """The same of any stage; a piece of the later two is the students of a point that are this process's own."""
    if name in STAGE_ONE:
        return shared_work(points, name)
    shares = zip(points, run.shares(seeds), strict=True)
    return [(stages.open(name, own, split), [stages]) for stages, own in shares if own and stages.point.has(name)]


def plan_points(
    run: Run,
    points: Sequence[PointStages],
    names: Sequence[StageName],
    seeds: Sequence[int] = (),
    split: Split = "test",
    failed: dict[str, str] | None = None,
) -> list[dict[StageName, StagePlan]]:
    """What each point has done and has to do of `names`; students that belong to another shard are not counted.

    With `failed`, points in it have no plan, and what keeps another from having one is put into it, not raised.
    """
    found: list[dict[StageName, StagePlan]] = []
    for stages, own in zip(points, run.shares(seeds), strict=True):
        point, plans = stages.point, dict[StageName, StagePlan]()
        has = [name for name in names if point.has(name) and (own or name in STAGE_ONE)]
        try:
            if point.name not in (failed or {}):
                plans = {
                    name: total_plan([each.open(name, own, split).plan() for each in stages.of(name)]) for name in has
                }
        except MolsakiError as error:
            if failed is None:
                raise
            failed[point.name] = str(error)
        found.append(plans)
    return found


def plan_stages(
    run: Run, names: Sequence[StageName], seeds: Sequence[int] = (), split: Split = "test"
) -> list[StagePlan]:
    """What all points together have done and have to do of each stage; what they share of stage one counts once."""
    points = look(run)
    plans = [[stage.plan() for stage, _ in all_work(run, points, name, seeds, split)] for name in names]
    return [total_plan(found) for found in plans if found]


def shard_of(command: str, option: Shard | None = None) -> Shard | None:
    """The shard of `command` that this process does, by its `--shard` or torchrun's variables; None for everything.

    Raises `ConfigError` where the two differ, and where torchrun has started several processes of what has to be one.
    """
    shard = chosen_shard(option, os.environ)
    if shard is not None and command not in STAGE_ONE:
        raise ConfigError(
            f"WORLD_SIZE={shard.count} in the environment, but `molsaki {command}` has to be one process; only "
            "`molsaki rationales CONFIG`, `molsaki attention CONFIG`, `molsaki soft-labels CONFIG` and `molsaki train "
            "CONFIG` can be shared out: let torchrun start those, and then run this by itself"
        )
    return shard
