"""The order of work: which stages a run has, what each still has to do, and doing it.

In: a configuration and the run's folder. Out: the stages' results, each stage in a process of its own, finished work
found and skipped. `execute_stage` is what such a process does; `run_stages` is what starts them. This process itself
loads no model and neither torch nor vllm, so that a finished run is recognised in seconds.
"""

import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.durable import replace_file
from data.errors import ConfigError, EngineError, Interrupted, MolsakiError
from pipeline.config.schema import Config, resolved_yaml
from pipeline.console.exits import StageProcessError
from pipeline.run import provenance
from pipeline.run.inputs import Inputs, Split
from pipeline.run.plan import Stage, StageName, StagePlan
from pipeline.run.students import EvaluateStage, TrainStage
from pipeline.run.supervise import ForwardingStop, stage_command
from pipeline.run.teacher import AttentionStage, RationaleStage, StageWithSpace
from pipeline.run.usage import Usage, disk_bytes
from stages.runtime.progress import Progress, StopSignal
from stages.runtime.shard import Shard, chosen_shard
from stages.student.objective import objective_of

log = logging.getLogger(__name__)
Say = Callable[[str], None]
CONFIGURATION = "config.yaml"
SHARDED: frozenset[StageName] = frozenset({"rationales", "attention"})
"""Stages that several processes may share out among them."""
OUR_EXIT_CODES = frozenset({1, 2, 65, 75})


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: what it is asked to do, the folder that its own results go to, and the shard that this process does.

    With `totals`, attention is also recorded where it is stored without what the steps look at in all.
    """

    config: Config
    folder: Path
    shard: Shard | None = None
    totals: bool = False

    @property
    def log(self) -> Path:
        """The run's log file; each shard has its own, for appends from several machines to one file can get lost."""
        which = "" if self.shard is None else f"-{self.shard.index}-of-{self.shard.count}"
        return self.folder / f"log{which}.jsonl"

    @property
    def config_file(self) -> Path:
        """The resolved configuration, saved with the run."""
        return self.folder / CONFIGURATION

    def save_config(self) -> None:
        """Write the resolved configuration; the file is replaced at once, by however many processes do so."""
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.config_file, resolved_yaml(self.config).encode())


def shard_of(command: str, option: Shard | None = None) -> Shard | None:
    """The shard of `command` that this process does, by its `--shard` or torchrun's variables; None for everything.

    Raises `ConfigError` where the two differ, and where torchrun has started several processes of what has to be one.
    """
    shard = chosen_shard(option, os.environ)
    if shard is not None and command not in SHARDED:
        raise ConfigError(
            f"WORLD_SIZE={shard.count} in the environment, but `molsaki {command}` has to be one process; only "
            "`molsaki rationales CONFIG`, `molsaki attention CONFIG` and `molsaki train CONFIG` can be shared out: let "
            "torchrun start those, and then run this by itself"
        )
    return shard


def train_share(run: Run, seeds: Sequence[int], *, progress: Progress, stop: StopSignal) -> None:
    """Take this process's part in training; nothing is recorded, which is the task of the process that counts."""
    open_stages(run, Inputs(run.config), seeds=seeds)["train"].execute(progress, stop)


def stages_of(config: Config) -> tuple[StageName, ...]:
    """The stages that a run of `config` has, in order; an objective without attention needs none recorded."""
    attention: tuple[StageName, ...] = ("attention",) if objective_of(config.objective).needs_attention else ()
    evaluate: tuple[StageName, ...] = ("evaluate",) if config.data.test else ()
    return ("rationales", *attention, "train", *evaluate)


def open_stages(
    run: Run, inputs: Inputs, *, seeds: Sequence[int] = (), split: Split = "test"
) -> Mapping[StageName, Stage]:
    """Look at a run as it is now; the stages remember what they saw, so look again after something was done."""
    whole = RationaleStage(inputs)
    rationales = whole if run.shard is None else RationaleStage(inputs, run.shard)
    all_attention = AttentionStage(inputs, whole)
    plain = run.shard is None and not run.totals
    attention = all_attention if plain else AttentionStage(inputs, whole, run.shard, totals=run.totals)
    train = TrainStage(inputs, run.folder, whole, all_attention, seeds)
    evaluate = EvaluateStage(inputs, run.folder, train, split)
    return {"rationales": rationales, "attention": attention, "train": train, "evaluate": evaluate}


def plan_stages(run: Run, names: Sequence[StageName], inputs: Inputs) -> list[StagePlan]:
    """What `names` have done and have to do, without doing any of it."""
    stages = open_stages(run, inputs)
    return [stages[name].plan() for name in names]


def run_stages(
    run: Run, names: Sequence[StageName], inputs: Inputs, *, say: Say, quiet: bool = False
) -> list[StagePlan]:
    """Do what is missing, stage after stage, and return the plans as they are in the end.

    `say` receives a line for each stage. Raises `StageProcessError` with the exit code of a stage that failed (it has
    said why), `Interrupted` when asked to stop between two stages.
    """
    run.save_config()
    if "evaluate" in names and (shared := inputs.overlap()):
        say(f"warning: {shared:,} of {len(inputs.questions('test')):,} test questions are training questions too")
    with ForwardingStop() as stop:
        for name in names:
            plan = open_stages(run, inputs)[name].plan()
            say(plan.line())
            if not plan.finished:
                _run_process(run, name, stop, quiet=quiet)
            stop.check("all that was committed")
    return plan_stages(run, names, inputs)


def execute_stage(run: Run, stage: Callable[[], Stage], *, progress: Progress, stop: StopSignal) -> StagePlan:
    """Do what one stage is missing, here in this process, and return its plan afterwards.

    `stage` opens the stage; it is called again afterwards, to count what was done.
    """
    opened = stage()
    before = opened.plan()
    if before.finished:
        progress.note(before.line())
        return before
    run.save_config()
    disk = disk_bytes(_places(run, opened))
    with Usage() as usage:
        record = functools.partial(_record, run, opened, started=provenance.now(), usage=usage, disk=disk)
        try:
            opened.execute(progress, stop)
        except Interrupted:
            record("stopped", units=before.to_do - stage().plan().to_do)
            raise
        except Exception:
            record("failed", units=_committed(stage, before))
            raise
        after = stage().plan()
        record("done", units=before.to_do - after.to_do)
    progress.note(after.result())
    return after


def _committed(stage: Callable[[], Stage], before: StagePlan) -> int:
    """Units that a stage has done before it failed; 0 where what is stored cannot be read now."""
    try:
        return before.to_do - stage().plan().to_do
    except (MolsakiError, OSError) as error:
        log.warning("units done before the failure are not known: %s", error)
        return 0


def _places(run: Run, stage: Stage) -> list[Path]:
    """Folders that a stage writes to."""
    space = [stage.path] if isinstance(stage, StageWithSpace) else []
    return [run.folder, run.config.store / "targets", *space]


def _run_process(run: Run, name: StageName, stop: ForwardingStop, *, quiet: bool) -> None:
    arguments = [str(run.config_file), "--runs", str(run.folder.parent), *(["--quiet"] if quiet else [])]
    require_success(f"stage {name}", stop.run(stage_command(name, arguments)))


def require_success(what: str, code: int) -> None:
    """Pass on how the process of `what` ended: `StageProcessError` where it has said why, else `EngineError`."""
    if code == 0:
        return
    if code in OUR_EXIT_CODES:
        raise StageProcessError(code)
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    hint = "; the machine may have run out of memory" if code == -signal.SIGKILL else ""
    raise EngineError(f"the process of the {what} was ended by {cause}{hint}; run the same command to go on")


def _record(run: Run, stage: Stage, outcome: str, *, units: int, started: str, usage: Usage, disk: int) -> None:
    used = usage.so_far()
    record = provenance.StageRecord(
        stage=stage.name,
        shard=None if run.shard is None else str(run.shard),
        started=started,
        ended=provenance.now(),
        seconds=round(used.seconds, 3),
        cpu_seconds=round(used.cpu_seconds, 3),
        bytes_grown=disk_bytes(_places(run, stage)) - disk,
        peak_bytes=used.peak_bytes,
        peak_gpu_bytes=used.peak_gpu_bytes,
        units=max(units, 0),
        outcome=outcome,
        command=tuple(sys.argv),
        fingerprints=dict(stage.fingerprints()),
        environment=provenance.environment(),
    )
    provenance.add_stage(run.folder, record)
    log.info("%s %s: %d units in %.1f s", stage.name, outcome, record.units, used.seconds)
