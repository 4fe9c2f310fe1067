"""The order of work: stage one once for all points, then their students, then the table of a matrix.

In: a `Run` and the stages that are asked for. Out: their results, each stage in a process of its own, finished work
found and skipped. One process trains the students of all points and one evaluates them, because starting Python and
torch takes longer than training a tiny student, or as many processes side by side as are asked for. This process itself
loads no model and neither torch nor vllm, so that a finished run is recognised in seconds. A point of a matrix that
fails does not stop the others; what the only point of a run raises ends the run.
"""

import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from cache.durable import replace_file
from data.errors import ConfigError, EngineError, Interrupted, MissingRecordsError, MolsakiError
from pipeline.console.exits import StageProcessError, complain
from pipeline.console.progress import open_progress
from pipeline.results.folder import EvaluationFolder, RunFolder
from pipeline.results.scores import Score, compare, score_tables, scores_of, write_scores
from pipeline.run.inputs import Split
from pipeline.run.jobs import Watch, said_by, threads_each
from pipeline.run.plan import STAGE_ONE, Stage, StageName, total_plan
from pipeline.run.points import PointRun, PointStages, Run, look, plan_points, shared_work
from pipeline.run.processes import Failures, ForwardingStop, run_side_by_side, stage_command
from pipeline.run.teacher import RationaleStage
from stages.runtime.progress import COMMITTED

Say = Callable[[str], None]
OUR_EXIT_CODES = frozenset({1, 2, 65, 75})


def run_stages(
    run: Run, names: Sequence[StageName], *, say: Say, quiet: bool, pass_on: Sequence[str] = (), jobs: int = 1
) -> dict[str, str]:
    """Do what is missing: stage one for all points, then the students; return what failed, by point of a matrix.

    Stage one is not shared out here, so a shard needs it complete: `MissingRecordsError` where it is not. Raises
    `Interrupted`, or `StageProcessError` where a process was stopped by a signal or the only point failed (it has said
    why), with what is done kept. `pass_on` goes to the process of each piece of stage one; `jobs` is how many students
    are worked on at a time.
    """
    run.save()
    first = run.points[0].inputs
    if "evaluate" in names and (shared := first.overlap()):
        say(f"warning: {shared:,} of {len(first.questions('test')):,} test questions are training questions too")
    failed: dict[str, str] = {}
    options = [*pass_on, *(["--quiet"] if quiet else [])]
    seen = _Seen(run)
    with ForwardingStop() as stop:
        for name in names:
            stop.check(COMMITTED)
            if name in STAGE_ONE:
                together = run.with_attention or "attention" in names
                _run_stage_one(seen, name, failed, stop, say=say, options=options, together=together)
            else:
                _run_students(seen, name, failed, stop, say=say, quiet=quiet, jobs=jobs)
    return failed


class _Seen:
    """The points of a run: looked at once, and again after a stage had something to do."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._points: Sequence[PointStages] | None = None

    def points(self) -> Sequence[PointStages]:
        """Look at them, unless they have been looked at since."""
        if self._points is None:
            self._points = look(self.run)
        return self._points

    def forget(self) -> None:
        """Let go of them, for something is about to change."""
        self._points = None


def _run_stage_one(
    seen: _Seen,
    name: StageName,
    failed: dict[str, str],
    stop: ForwardingStop,
    *,
    say: Say,
    options: Sequence[str],
    together: bool,
) -> None:
    """Run each piece of stage one that is missing in a process of its own, under the first point that needs it.

    With `together`, the engine that writes rationales is to record the attention as well, of all points that need them;
    so what has no such engine comes first, for the others' records are made of it too.
    """
    run = seen.run
    sound = [stages for stages in seen.points() if stages.point.name not in failed]
    pieces = [
        (stage, needing, _readers(needing) if together and name == "rationales" else [])
        for stage, needing in shared_work(sound, name)
    ]
    for stage, needing, readers in sorted(pieces, key=lambda piece: bool(piece[2])):
        names, first = [stages.point.name for stages in needing], (readers or [needing[0].point])[0]
        try:
            plan = stage.plan()
            say(plan.line() + _for_points(run, len(names)) + _of_source(first))
            if plan.finished and _is_read(stage):
                continue
            if run.shard is not None:
                commands = " and ".join(f"molsaki {each} CONFIG" for each in run.stages if each in STAGE_ONE)
                raise MissingRecordsError(
                    f"{plan.line()}; --shard shares out the students and needs stage one complete: first run {commands}"
                )
            seen.forget()
            command = stage_command(name, [str(first.config_file), "--runs", str(first.folder.parent), *options])
            code = stop.run([*command, *_with_attention(readers)])
            failed_both = readers and not (run.single or run.with_attention) and code not in {0, Interrupted.exit_code}
            if failed_both and RationaleStage(first.inputs).plan().to_do < plan.to_do:  # it may have been the attention
                say(f"{name}: going on without the attention, which the next stage tries by itself")
                code = stop.run(command)
            _require_success(name, code)
        except StageProcessError as error:
            if run.single or error.code == Interrupted.exit_code:
                raise
            failed.update(dict.fromkeys(names, f"{name} ended with exit code {error.code} and has said why above"))
        except MolsakiError as error:
            if run.single or run.shard is not None or isinstance(error, Interrupted):
                raise
            failed.update(dict.fromkeys(names, str(error) if isinstance(error, EngineError) else f"{name}: {error}"))


def _readers(needing: Sequence[PointStages]) -> list[PointRun]:
    """The points whose attention the engine of shared rationales can record, one for each that differs."""
    found = {id(stages.all_attention): stages.point for stages in needing if stages.point.reads_what_it_writes}
    return [*found.values()]


def _with_attention(readers: Sequence[PointRun]) -> list[str]:
    """Options of a process that works under the configuration of the first of them."""
    also = [f"--attention-of={point.config_file}" for point in readers[1:]]
    return ["--with-attention", *also] if readers else []


def _is_read(stage: Stage) -> bool:
    """Whether nothing is missing of what the engine that wrote rationales is asked to record of them."""
    return not isinstance(stage, RationaleStage) or all(opened().plan().finished for opened in stage.reading)


def _for_points(run: Run, count: int) -> str:
    return "" if run.single else f"; for {count} of {len(run.points)} points"


def _of_source(point: PointRun) -> str:
    """Which source of rationales it is, for all but a run's own."""
    return f"; {point.config.name}" if point.is_source else ""


def require_room(run: Run, jobs: int) -> None:
    """Raise `ConfigError` where students of several processes each were to be trained side by side."""
    together = max(point.config.training.processes for point in run.points)
    if jobs > 1 and together > 1:
        raise ConfigError(
            f"--jobs {jobs}: not together with training.processes {together}, which gives one student all that the "
            "jobs would share; leave one of the two out"
        )


def _run_students(
    seen: _Seen, name: StageName, failed: dict[str, str], stop: ForwardingStop, *, say: Say, quiet: bool, jobs: int
) -> None:
    """Train or evaluate in one process or in several, and in others where a point has brought one down."""
    run = seen.run
    by_point = plan_points(run, seen.points(), (name,), failed=None if run.single else failed)
    plans = [plans[name] for plans in by_point if name in plans]
    if not plans:
        if not failed:
            say(f"{name}: nothing for shard {run.shard}, there are more shards than students")
        return
    plan = total_plan(plans)
    which = "" if run.shard is None else f" in shard {run.shard}"
    say(plan.line() + _for_points(run, len(plans)) + which)
    count = min(jobs, plan.to_do) if _side_by_side(run, name) else 1
    while not plan.finished:
        seen.forget()
        codes, found = _worked(run, name, failed, stop, quiet=quiet, jobs=count, students=plan.to_do)
        for failures in found:
            failed |= failures.failed
        bad = [(code, failures) for code, failures in zip(codes, found, strict=True) if not _is_well(code, failures)]
        if not bad:
            break
        for code, failures in bad:
            if code in OUR_EXIT_CODES or failures.at is None:
                _require_success(name, code)
            failed[str(failures.at)] = (
                f"{name}: its process was ended by {_cause(code)}; the machine may have run out of memory"
            )
            complain(f"{failures.at}: {failed[str(failures.at)]}; the other points go on")
    if count > 1 and name == "evaluate":  # each process has written what it saw
        for point, folder in evaluated_folders(run).items():
            write_scores(folder.summary, scores_of(point, folder))


def _worked(
    run: Run,
    name: StageName,
    failed: Mapping[str, str],
    stop: ForwardingStop,
    *,
    quiet: bool,
    jobs: int,
    students: int,
) -> tuple[list[int], list[Failures]]:
    """Exit codes and failures of the processes that work on what is missing."""
    with TemporaryDirectory(prefix="molsaki-") as scratch:
        folder = Path(scratch)
        paths = [folder / f"failures-{number}.json" for number in range(1, jobs + 1)]
        commands = [stage_command(name, _student_arguments(run, failed, path, quiet=quiet)) for path in paths]
        if jobs == 1:
            return [stop.run(commands[0])], [Failures.read(paths[0])]
        for number, command in enumerate(commands, start=1):
            command += ["--job", f"{number}/{jobs}", "--claims", scratch]
        threads = {"OMP_NUM_THREADS": threads_each(jobs)}
        with said_by(folder, jobs) as (written, read), open_progress(quiet=quiet, logs=False) as progress:
            watch = Watch(progress, f"{name}, {jobs} at a time", students, folder, read)
            codes = run_side_by_side(commands, written, threads, stop, together=run.single, watch=watch)
        return codes, [Failures.read(path) for path in paths]


def _side_by_side(run: Run, name: StageName) -> bool:
    """Whether students of a stage can be worked on by several processes: an engine such as vLLM fills the machine."""
    return name != "evaluate" or all(point.config.evaluation.engine == "transformers" for point in run.points)


def _is_well(code: int, failures: Failures) -> bool:
    """Whether a process has done all that it could: what failed of a matrix has been said."""
    return code == 0 or (code == MolsakiError.exit_code and bool(failures.failed) and failures.at is None)


def _student_arguments(run: Run, failed: Mapping[str, str], failures: Path, *, quiet: bool) -> list[str]:
    shard = [] if run.shard is None else ["--shard", str(run.shard)]
    without = [argument for point in failed for argument in ("--without", point)]
    return [
        *(str(run.config_file), "--runs", str(run.folder.parent), "--failures", str(failures)),
        *(*shard, *without, *(["--quiet"] if quiet else [])),
    ]


def _require_success(name: StageName, code: int) -> None:
    """Pass on how the process of a stage ended: `StageProcessError` where it has said why, else `EngineError`."""
    if code == 0:
        return
    if code in OUR_EXIT_CODES:
        raise StageProcessError(code)
    hint = "; the machine may have run out of memory" if code == -signal.SIGKILL else ""
    raise EngineError(
        f"the process of the stage {name} was ended by {_cause(code)}{hint}; run the same command to go on"
    )


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def unfinished_points(run: Run, failed: Mapping[str, str]) -> list[str]:
    """The points whose students have not all answered the test questions, those that failed among them."""
    known = dict(failed)
    every = replace(run, shard=None)
    plans = plan_points(every, look(every), ("evaluate",), failed=known)
    return [
        point.name
        for point, found in zip(run.points, plans, strict=True)
        if point.name in known or ("evaluate" in found and not found["evaluate"].finished)
    ]


def evaluated_folders(run: Run, split: Split = "test") -> dict[str, EvaluationFolder]:
    """Where the answers to a split lie, of the points that have some."""
    folders = {point.name: RunFolder(point.folder).evaluation(split) for point in run.points}
    return {name: folder for name, folder in folders.items() if folder.seeds()}


def write_results(run: Run, missing: Sequence[str]) -> list[Score]:
    """Write `summary.json` and `results.md` of the points that have been evaluated; nothing where none has."""
    folders = evaluated_folders(run)
    if not folders:
        return []
    for name, folder in folders.items():  # a shard that wrote its own has seen no others
        write_scores(folder.summary, scores_of(name, folder))
    scores, beside = compare(folders), RunFolder(run.folder)
    write_scores(beside.summary, scores)
    command = f"    molsaki compare {shlex.quote(str(run.folder))}"
    note = f"\nNot finished: {', '.join(missing)}.\n" if missing else ""
    tables = "\n".join(table.markdown() for table in score_tables(scores))
    text = f"# {run.matrix.name}\n\n{command}\n\n{tables}{note}"
    replace_file(beside.results, text.encode())
    return scores
