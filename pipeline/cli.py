"""The command `molsaki`.

In: arguments. Out: tables or JSON on stdout, progress and errors on stderr, an exit code. Commands only read their
options and hand over; everything heavy is imported inside them, so that `molsaki --help` answers at once.
"""

import functools
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from pipeline.exits import ErrorsToExitCodes, Invocation
from pipeline.subcommands import WithSubcommands

if TYPE_CHECKING:
    from data.sharding import Shard
    from pipeline.inputs import Inputs
    from pipeline.plans import Stage, StageName, StagePlan
    from pipeline.plot import PlotRequest
    from pipeline.sweep import Sweep
    from pipeline.sweep_commands import Options
    from pipeline.work import Run

Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(path_type=Path)
SAMPLE_SECONDS = 20
OVERVIEW = """\
\b
To begin:
  molsaki demo                  the whole pipeline on made-up problems
  molsaki config init my.yaml   a commented configuration to start from
  molsaki run my.yaml           do it; finished work is found and skipped

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 65 damaged data, 75 stopped after saving.
"""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the options shared by the commands of a run say."""

    config: Path
    overrides: tuple[str, ...]
    runs: Path
    dry_run: bool
    sample: float | None
    as_json: bool
    quiet: bool

    def load(self, shard: "Shard | None" = None, *, totals: bool = False) -> "Run":
        """Read the configuration and say which run it is, or which shard of it."""
        from pipeline.config import load_config
        from pipeline.work import Run

        config = load_config(self.config, self.overrides)
        return Run(config=config, folder=self.runs / config.name, shard=shard, totals=totals)

    def sweep(self, shard: "Shard | None" = None) -> "Sweep | None":
        """The matrix in the configuration, or which shard of its students; None where it is one run."""
        from pipeline.matrix import load_matrix
        from pipeline.sweep import Sweep

        matrix = load_matrix(self.config, self.overrides)
        if matrix is None:
            if shard is not None:
                raise click.UsageError(
                    f"--shard {shard}: {self.config} has no matrix, and --shard shares out the students of one; take "
                    "--seed for jobs side by side, and --shard with `molsaki rationales` and `molsaki attention` for "
                    "shares of stage one"
                )
            return None
        if self.sample is not None:
            raise click.UsageError("--sample tries one run, not a matrix; try what all begin with: --set matrix=null")
        return Sweep(matrix=matrix, folder=self.runs / matrix.name, shard=shard)

    def options(self) -> "Options":
        """How a command on a matrix works and prints."""
        from pipeline.sweep_commands import Options

        return Options(say=self.say, dry_run=self.dry_run, as_json=self.as_json, quiet=self.quiet)

    def say(self, line: str) -> None:
        """Tell the person at the terminal, and the log."""
        logging.getLogger(__name__).info(line)
        if not self.quiet:
            click.echo(line, err=True)


def examples(*lines: str) -> str:
    """The end of a command's help: command lines to copy, which click leaves as they are."""
    return "\n".join(("\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)))


def run_options(command: Command) -> Command:
    """Add CONFIG and the options that all commands of a run share; they arrive as one `request`."""

    @functools.wraps(command)
    def with_request(**options: Any) -> Any:  # click's own types
        shared = {name: options.pop(name) for name in Request.__annotations__}
        if shared["sample"] is not None and not shared["dry_run"] and click.get_current_context().info_name != "status":
            raise click.UsageError("--sample only says what the work would cost; it goes with --dry-run")
        return command(request=Request(**shared), **options)

    for option in (
        click.option("--quiet", is_flag=True, help="No progress; errors only."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables."),
        click.option(
            "--sample",
            type=click.FloatRange(min=0, min_open=True),
            is_flag=False,
            flag_value=SAMPLE_SECONDS,
            metavar="[SECONDS]",
            help="With --dry-run or status: try a small share of each stage, about so long once it is loaded, and say "
            f"what all of it would take. Nothing is kept.  [{SAMPLE_SECONDS} without a number]",
        ),
        click.option("--dry-run", is_flag=True, help="Say what would be done and do nothing."),
        click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of all runs."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value; repeatable."),
        click.argument("config", type=FILE),
    ):
        with_request = option(with_request)
    return with_request  # type: ignore[return-value]


def read_shard(ctx: click.Context, param: click.Parameter, value: str | None) -> "Shard | None":
    """Read `2/8` as the second of eight shards."""
    from data.errors import ConfigError
    from data.sharding import Shard

    try:
        return None if value is None else Shard.parse(value)
    except ConfigError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def shard_option(units: str) -> Callable[[Command], Command]:
    """Add `--shard` to a stage that several processes may share out among them, by its `units`."""
    return click.option(
        "--shard",
        callback=read_shard,
        metavar="I/N",
        help=f"Only share I of N of the {units}, counted from 1; each belongs to exactly one of them.  "
        "[default: RANK and WORLD_SIZE where torchrun sets them, else everything]",
    )


units_option = click.option(
    "--shard",
    callback=read_shard,
    metavar="I/N",
    help="Of a matrix: only share I of N, counted from 1, of its students; each belongs to exactly one of them.",
)
hidden_report = click.option("--report", type=FILE, hidden=True)
hidden_without = click.option("--without", multiple=True, hidden=True)
seed_option = click.option(
    "--seed", "seeds", type=int, multiple=True, help="Only this seed of training.seeds; repeatable."
)
supervised_option = click.option("--supervised", is_flag=True, hidden=True)


@click.group(cls=ErrorsToExitCodes, epilog=OVERVIEW, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="molsaki")
@click.option("--debug", is_flag=True, envvar="MOLSAKI_DEBUG", help="Show tracebacks.")
@click.pass_context
def molsaki(ctx: click.Context, debug: bool) -> None:
    """Distil a teacher's chain of thought, and where it looked step by step, into a small student."""
    ctx.obj = Invocation(debug=debug)


@molsaki.command(
    epilog=examples(
        "molsaki demo",
        "molsaki demo --seeds 10        enough seeds for an interval that excludes zero",
        "molsaki demo --models-only 4 --out study      the models of examples/study.yaml",
    )
)
@click.option("--out", type=FOLDER, default=Path("demo"), show_default=True, help="Folder for everything it makes.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Students per objective.")
@click.option(
    "--models-only",
    type=click.IntRange(min=1),
    metavar="LAYERS",
    help="Make a teacher of so many layers and a student without weights, and stop there.",
)
def demo(out: Path, seeds: int, models_only: int | None) -> None:
    """Run the whole pipeline on made-up word problems; needs no network and no GPU."""
    from pipeline.demo import make_models, run_demo

    if models_only is not None:
        make_models(out=out, teacher_layers=models_only)
    else:
        run_demo(out=out, seeds=seeds)


@molsaki.command(
    epilog=examples(
        "molsaki run examples/svamp.yaml",
        "molsaki run examples/svamp.yaml --set student.model=gpt2-large --set name=svamp-gpt2",
        "molsaki run examples/study.yaml                  a matrix: all its points, then one table",
        "molsaki run examples/study.yaml --shard 1/2      half of its students, once stage one is there",
    )
)
@run_options
@click.option("--only", type=click.Choice(["rationales", "attention", "train", "evaluate"]), help="This stage only.")
@units_option
def run(request: Request, only: "StageName | None", shard: "Shard | None") -> None:
    """Do everything that CONFIG asks for, stage after stage, each in a process of its own.

    Finished work is found and skipped, so the same command goes on after an interruption. Where CONFIG has a `matrix`,
    stage one is done for all of its points, then their students; a point that fails does not stop the others.
    """
    from pipeline.inputs import Inputs
    from pipeline.work import plan_stages, run_stages, shard_of, stages_of

    shard_of("run")
    if (sweep := request.sweep(shard)) is not None:
        from pipeline.sweep_commands import run_points

        run_points(sweep, (only,) if only else sweep.stages(), request.options())
        return
    work = request.load()
    names = (only,) if only else stages_of(work.config)
    inputs = Inputs(work.config)
    inputs.check(names)
    if request.dry_run:
        _print_plans(work, plan_stages(work, names, inputs), inputs, request)
        return
    with _log_of(work):
        plans = run_stages(work, names, inputs, say=request.say, quiet=request.quiet)
        if only is None:
            from pipeline.report import report_at_end

            report_at_end(work.folder, request.say)
    _print_results(work, plans, request)


@molsaki.command(
    epilog=examples(
        "molsaki status examples/svamp.yaml",
        "molsaki status examples/svamp.yaml --json",
        "molsaki status examples/svamp.yaml --sample      tries a share of each stage and says what all would take",
    )
)
@run_options
def status(request: Request) -> None:
    """Say what is done, what is missing, and what it would take: bytes on disk, memory and, with --sample, time."""
    from pipeline.inputs import Inputs
    from pipeline.work import plan_stages, stages_of

    if (sweep := request.sweep()) is not None:
        from pipeline.sweep_commands import print_sweep

        sweep.check(sweep.stages())
        print_sweep(sweep, sweep.stages(), as_json=request.as_json)
        return
    work = request.load()
    names, inputs = stages_of(work.config), Inputs(work.config)
    inputs.check(names)
    _print_plans(work, plan_stages(work, names, inputs), inputs, request)


@molsaki.command("train-share", hidden=True)
@click.argument("folder", type=FOLDER)
@seed_option
@click.option("--quiet", is_flag=True)
def train_share(folder: Path, seeds: tuple[int, ...], quiet: bool) -> None:
    """Train the students of a run's folder as one of several processes, for `training.processes`, which starts it."""
    from data.sharding import process_of
    from pipeline.config import load_config
    from pipeline.progress import open_progress
    from pipeline.supervise import stop_with_parent
    from pipeline.terminal import quieten_libraries, stdout_to_stderr
    from pipeline.work import CONFIGURATION, Run
    from pipeline.work import train_share as train_this_share
    from stages.progress import StopSignal

    with StopSignal() as stop:
        stop_with_parent()
        is_main = process_of(os.environ).is_main
        quieten_libraries(quiet=quiet or not is_main)
        run = Run(config=load_config(folder / CONFIGURATION), folder=folder)
        log = _log_of(run) if is_main else nullcontext()
        with log, stdout_to_stderr(), open_progress(quiet=quiet or not is_main) as progress:
            train_this_share(run, seeds, progress=progress, stop=stop)


@molsaki.command("sample-stage", hidden=True)
@click.argument("config", type=FILE)
@click.option("--runs", type=FOLDER, required=True)
@click.option("--stage", type=click.Choice(["rationales", "attention", "train", "evaluate"]), required=True)
@click.option("--units", type=int, required=True)
@click.option("--seconds", type=float, required=True)
@click.option("--out", type=FILE, required=True)
@click.option("--shard", callback=read_shard)
@click.option("--quiet", is_flag=True)
@supervised_option
def sample_stage(
    config: Path,
    runs: Path,
    stage: "StageName",
    units: int,
    seconds: float,
    out: Path,
    shard: "Shard | None",
    quiet: bool,
    supervised: bool,
) -> None:
    """Sample one stage of the shadow of a run, for `--sample`, which starts it."""
    import json
    from dataclasses import asdict

    from pipeline.config import load_config
    from pipeline.progress import open_progress
    from pipeline.supervise import stop_with_parent
    from pipeline.terminal import quieten_libraries, stdout_to_stderr
    from pipeline.work import Run

    if supervised:
        stop_with_parent()
    quieten_libraries(quiet=quiet)
    from pipeline.sampling import sample_stage as sample

    loaded = load_config(config)
    work = Run(config=loaded, folder=runs / loaded.name, shard=shard)
    with stdout_to_stderr(), open_progress(quiet=quiet) as progress:
        found = sample(work, stage, units=units, seconds=seconds, progress=progress)
    out.write_text(json.dumps(found and asdict(found)), encoding="utf-8")


@click.command(
    cls=WithSubcommands,
    epilog=examples(
        "molsaki rationales examples/svamp.yaml",
        "molsaki rationales examples/svamp.yaml --set rationales.engine=transformers",
        "molsaki rationales examples/svamp.yaml --shard 2/8      the second of eight jobs, in any order or at once",
        "molsaki rationales show examples/svamp.yaml             what it has written so far, and what was dropped",
    ),
)
@run_options
@shard_option("questions")
@supervised_option
def rationales(request: Request, shard: "Shard | None", supervised: bool) -> None:
    """Let the teacher explain the training questions.

    Any number of processes may do so at once, on any number of machines, each with a share of the questions.
    """
    _stage(request, "rationales", shard=shard, supervised=supervised)


molsaki.add_command(rationales)


@click.command(
    "show",
    epilog=examples(
        "molsaki rationales show examples/svamp.yaml",
        "molsaki rationales show examples/svamp.yaml --number 10 --outcome 'wrong answer'",
        "molsaki rationales show examples/svamp.yaml --json > rationales.json",
    ),
)
@click.argument("config", type=FILE)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value; repeatable.")
@click.option("--number", type=click.IntRange(min=0), default=3, show_default=True, help="How many to show.")
@click.option("--outcome", help="Show those with this outcome, as the table below names it.  [default: kept]")
@click.option("--dataset", "datasets", multiple=True, help="Only questions of this data set; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text and tables.")
def show_rationales(**options: Any) -> None:  # click's own types
    """Show what the teacher wrote, step by step, and what was dropped.

    Samples are spread over the questions. Steps have numbers, critical words are highlighted, or in [ ] where there are
    no colours.
    """
    from pipeline.show_rationales import ShowRequest
    from pipeline.show_rationales import show_rationales as show

    show(ShowRequest(**options))


rationales.add_command(show_rationales)


@molsaki.command(
    epilog=examples(
        "molsaki attention examples/svamp.yaml",
        "molsaki attention examples/svamp.yaml --set attention.batch_tokens=65536",
        "molsaki attention examples/svamp.yaml --shard 2/8      the second of eight jobs, in any order or at once",
        "molsaki attention examples/svamp.yaml --totals         also records of older parts once more, for plots",
    )
)
@run_options
@shard_option("records")
@click.option(
    "--totals",
    is_flag=True,
    help="Also run the teacher once more over records that older parts hold without what their steps look at in all, "
    "which `molsaki plot shares` needs and training does not.",
)
@supervised_option
def attention(request: Request, shard: "Shard | None", totals: bool, supervised: bool) -> None:
    """Record where the teacher looks, step by step, over questions and rationales.

    Any number of processes may do so at once, on any number of machines, each with a share of the records.
    """
    _stage(request, "attention", shard=shard, totals=totals, supervised=supervised)


@molsaki.command(
    epilog=examples(
        "molsaki train examples/svamp.yaml",
        "molsaki train examples/svamp.yaml --seed 2      one of training.seeds, for jobs side by side",
        "molsaki train examples/study.yaml --shard 2/8   the second eighth of a matrix's students",
    )
)
@run_options
@seed_option
@units_option
@hidden_report
@hidden_without
@supervised_option
def train(request: Request, seeds: tuple[int, ...], supervised: bool, **units: Any) -> None:  # click's own types
    """Train the students from the stored rationales and attention; the teacher is not loaded."""
    if not _students_of_points(request, "train", seeds=seeds, supervised=supervised, **units):
        _stage(request, "train", seeds=seeds, supervised=supervised)


@molsaki.command(
    epilog=examples("molsaki evaluate examples/svamp.yaml", "molsaki evaluate examples/svamp.yaml --split dev --json")
)
@run_options
@seed_option
@units_option
@click.option("--split", type=click.Choice(["test", "dev"]), default="test", show_default=True, help="Which questions.")
@hidden_report
@hidden_without
@supervised_option
def evaluate(
    request: Request, seeds: tuple[int, ...], split: Literal["test", "dev"], supervised: bool, **units: Any
) -> None:  # click's own types
    """Let the students answer and count what is right."""
    if not _students_of_points(request, "evaluate", seeds=seeds, split=split, supervised=supervised, **units):
        _stage(request, "evaluate", seeds=seeds, split=split, supervised=supervised)


@molsaki.command(
    epilog=examples(
        "molsaki compare svamp-dss svamp-molsaki",
        "molsaki compare runs/svamp-dss /scratch/runs/svamp-molsaki --json",
        "molsaki compare study --base dss      all points of a matrix",
    )
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--runs", "root", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of all runs.")
@click.option("--base", metavar="RUN", help="The run that differences are to.  [default: the first]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def compare(runs: tuple[str, ...], root: Path, base: str | None, as_json: bool) -> None:
    """Show accuracies of runs side by side, and their paired differences to one of them.

    The folder of a matrix stands for all of its points. Differences are taken question by question and seed by seed,
    over those that both have; the interval (95%) comes from resampling both.
    """
    from pipeline.sweep_commands import compare_runs

    compare_runs(runs, root, base, as_json=as_json)


@molsaki.command(
    epilog=examples(
        "molsaki explore examples/svamp.yaml             the records of a run, and where its students looked",
        "molsaki explore attention/Qwen2.5-7B-Instruct   all records of a space, as many as fit into 5 MB",
        "molsaki explore runs/svamp --search apples --records 2000 --out apples.html",
    )
)
@click.argument("what", metavar="CONFIG|SPACE")
@click.option(
    "--out",
    type=FILE,
    help="The page.  [default: explore.html in the run's folder; for a space its name in the working directory]",
)
@click.option("--records", type=click.IntRange(min=1), help="So many at most.  [default: as many as fit into 5 MB]")
@click.option(
    "--keys", type=FILE, help="The records with these keys, one a line; all of them, unless --records says less."
)
@click.option("--search", metavar="TEXT", help="Only records with this in their text; capitals or not.")
@click.option(
    "--seed",
    type=int,
    help="Take them in a random order.  [default: those that students were asked about, then by the order of the run]",
)
@click.option("--store", type=FOLDER, help="Where SPACE is looked for.  [default: the user's cache directory]")
@click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of all runs.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value; repeatable.")
def explore(
    what: str, out: Path | None, store: Path | None, runs: Path, overrides: tuple[str, ...], **selected: Any
) -> None:  # click's own types
    """Write one HTML page to look through records: texts, steps, critical words, and where a model looks.

    CONFIG is a configuration or the folder of a run, SPACE a folder, the beginning of a name in the store, a tar file
    or an address. The page holds everything that it shows and asks nobody for anything. No model is loaded.
    """
    from pipeline.explore import Selected, default_out, look_at, write_explorer
    from pipeline.which_space import choose

    chosen = choose(what, store=store, runs=runs, overrides=overrides)
    path = out or default_out(chosen)
    written = write_explorer(look_at(chosen), Selected(**selected), path)
    left = f"; {chosen.missing:,} of the run are not stored yet" if chosen.missing else ""
    click.echo(f"{written.shown:,} of {written.wanted:,} records, {written.bytes / 1e6:.1f} MB{left}", err=True)
    click.echo(path)


@molsaki.command(
    epilog=examples(
        "molsaki report svamp                        writes runs/svamp/report.html",
        "molsaki report svamp-dss svamp --out svamp.html",
        "molsaki report study --base dss             all points of a matrix",
    )
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--runs", "root", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of all runs.")
@click.option("--base", metavar="RUN", help="The run that differences are to.  [default: the first]")
@click.option("--out", type=FILE, help="File to write.  [default: report.html in the run's folder; of several, beside]")
@click.option("--json", "as_json", is_flag=True, help="Print path and all figures as JSON.")
def report(runs: tuple[str, ...], root: Path, base: str | None, out: Path | None, as_json: bool) -> None:
    """Put runs on one HTML page that needs nothing else: what was run, accuracies, losses, layer weights, cost.

    The folder of a matrix stands for all of its points. What is not there yet is said on the page; the same command
    writes it anew. Prints where the page is.
    """
    from pipeline.report import report_runs

    report_runs(runs, root, out=out, base=base, as_json=as_json)


@molsaki.command(
    epilog=examples(
        "molsaki push runs/svamp my-name/svamp-student",
        "molsaki push runs/svamp my-name/svamp-student --seed 2 --public",
    )
)
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.argument("repository")
@click.option("--seed", type=int, default=0, show_default=True, help="Which of the run's students.")
@click.option("--public", is_flag=True, help="Make a new repository public; it is private otherwise.")
def push(run: Path, repository: str, seed: int, public: bool) -> None:
    """Upload one student of RUN, with its model card, to REPOSITORY on the Hugging Face hub.

    Nothing else ever does so. Needs HF_TOKEN in the environment, or `hf auth login` once.
    """
    from pipeline.push import push_student

    click.echo(push_student(run, seed, repository, private=not public))


@molsaki.group()
def config() -> None:
    """Show, describe or start a configuration file."""


@config.command("show", epilog=examples("molsaki config show examples/svamp.yaml --set training.epochs=3"))
@click.argument("path", metavar="CONFIG", type=FILE)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of YAML.")
def config_show(path: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print CONFIG with every default filled in, and its matrix as it is, after every point was checked."""
    from pipeline.config import load_config, resolved_yaml
    from pipeline.matrix import load_matrix
    from pipeline.tables import print_json

    resolved, matrix = load_config(path, overrides), load_matrix(path, overrides)
    if as_json:
        print_json(resolved.model_dump(mode="json") | ({} if matrix is None else {"matrix": matrix.written}))
    else:
        click.echo((resolved_yaml(resolved) if matrix is None else matrix.yaml()).rstrip())


@config.command("schema", epilog=examples("molsaki config schema > molsaki.schema.json"))
def config_schema() -> None:
    """Print the JSON schema of a configuration file, for editors."""
    from pipeline.config import schema_json

    click.echo(schema_json())


@config.command("init", epilog=examples("molsaki config init my.yaml"))
@click.argument("path", type=FILE, default=Path("molsaki.yaml"))
def config_init(path: Path) -> None:
    """Write a commented configuration to start from; a file that exists stays as it is."""
    from pipeline.starter import write_starter

    write_starter(path)
    click.echo(f"{path} written; look it over, then: molsaki run {path} --dry-run", err=True)


@molsaki.group()
def cache() -> None:
    """Look into the stores of rationales and attention."""


store_option = click.option("--store", type=FOLDER, help="Folder of the stores.  [default: the user's cache directory]")


@cache.command("ls", epilog=examples("molsaki cache ls", "molsaki cache ls --store /scratch/molsaki --json"))
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def cache_ls(store: Path | None, as_json: bool) -> None:
    """List the spaces of a store; one that cannot be opened does not hide the others, and is an error."""
    from pipeline.config import default_store
    from pipeline.spaces import list_store

    list_store(store or default_store(), as_json=as_json)


@cache.command(
    "show",
    epilog=examples(
        "molsaki cache show attention/Qwen2.5-7B-Instruct",
        "molsaki cache show attention/Qwen2.5-7B-Instruct --record 3fa9        one record, and where its steps look",
    ),
)
@click.argument("space")
@store_option
@click.option("--record", metavar="KEY", help="Show this record with its heat map; the beginning of its key will do.")
@click.option("--layer", type=click.IntRange(min=1), help="Of --record: this layer, from 1.  [default: mean of all]")
@click.option("--mixture", is_flag=True, help="Of --record: the layers mixed as students learn them (Eq. 4).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def cache_show(
    space: str, store: Path | None, record: str | None, layer: int | None, mixture: bool, as_json: bool
) -> None:
    """Say what SPACE holds and what it was made with; SPACE is a folder or the beginning of a name in the store.

    With --record it may also be a configuration, a run's folder, a tar file or an address, as in `molsaki plot`.
    """
    if record is not None:
        from pipeline.plot import show_record

        show_record(space, store, record, layer=layer, mixture=mixture, as_json=as_json)
        return
    if layer is not None or mixture:
        raise click.UsageError("--layer and --mixture go with --record")
    from cache.spaces import describe
    from pipeline.config import default_store
    from pipeline.spaces import find_space
    from pipeline.tables import print_space

    print_space(describe(find_space(space, store or default_store())), as_json=as_json)


@cache.command(
    "export",
    epilog=examples(
        "molsaki cache export attention/Qwen2.5-7B-Instruct /shared/qwen",
        "molsaki cache export attention/Qwen2.5-7B-Instruct hf://datasets/me/qwen-attention/space.tar",
        "molsaki cache export attention/Qwen2.5-7B-Instruct part.tar --keys keys.txt",
    ),
)
@click.argument("space")
@click.argument("target")
@click.option("--keys", type=FILE, help="Only the records with these keys, one a line.")
@store_option
@click.option("--quiet", is_flag=True, help="No progress; errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def cache_export(space: str, target: str, keys: Path | None, store: Path | None, quiet: bool, as_json: bool) -> None:
    """Write SPACE to TARGET: a folder, a .tar file, or an address such as s3://bucket/space.

    A README card says what it is. The same command goes on where it was interrupted, and adds what is new to a folder.
    """
    from pipeline.config import default_store
    from pipeline.sharing import run_export
    from pipeline.tables import print_exported

    print_exported(run_export(space, store or default_store(), target, keys=keys, quiet=quiet), as_json=as_json)


@cache.command(
    "import",
    epilog=examples(
        "molsaki cache import /shared/qwen",
        "molsaki cache import hf://datasets/me/qwen-attention/space.tar",
        "molsaki cache import /scratch/store/attention/qwen-numbers-0123456789abcdef      merges another store",
    ),
)
@click.argument("source")
@store_option
@click.option("--quiet", is_flag=True, help="No progress; errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def cache_import(source: str, store: Path | None, quiet: bool, as_json: bool) -> None:
    """Take the space at SOURCE into the store: a folder, a .tar file, or an address such as s3://bucket/space.

    Nothing in it is trusted: every byte and every record is checked before the store changes. Records that are there
    already stay as they are.
    """
    from pipeline.config import default_store
    from pipeline.sharing import run_import
    from pipeline.tables import print_imported

    print_imported(run_import(source, store or default_store(), quiet=quiet), as_json=as_json)


def read_age_option(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Read `12h` as seconds."""
    from data.errors import ConfigError
    from pipeline.cache_commands import read_age

    try:
        return read_age(value)
    except ConfigError as error:
        raise click.BadParameter(str(error), ctx, param) from error


@cache.command(
    "verify",
    epilog=examples(
        "molsaki cache verify attention/Qwen2.5-7B-Instruct",
        "molsaki cache verify attention/Qwen2.5-7B-Instruct --deep --store /shared/molsaki",
        "molsaki cache verify attention/Qwen2.5-7B-Instruct --repair",
        "molsaki cache verify attention/Qwen2.5-7B-Instruct --against-teacher 20 --teacher Qwen/Qwen2.5-7B-Instruct",
    ),
)
@click.argument("space")
@store_option
@click.option("--deep", is_flag=True, help="Decode everything and judge every record.")
@click.option("--repair", is_flag=True, help="Keep what is sound of damaged parts; the next run computes the rest.")
@click.option(
    "--against-teacher", type=click.IntRange(min=1), metavar="N", help="Run N records through the teacher again."
)
@click.option("--teacher", metavar="PATH_OR_ID", help="Where the teacher is, for --against-teacher.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--quiet", is_flag=True, help="No progress; errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def cache_verify(store: Path | None, **options: Any) -> None:  # click's own types
    """Check everything that SPACE has committed, and list all damage; SPACE as in `cache show`.

    Sizes, hashes and checksums by default. Ends with exit code 65 where damage is left.
    """
    from pipeline.cache_commands import VerifyRequest, verify_space
    from pipeline.config import default_store

    verify_space(VerifyRequest(store=store or default_store(), **options))


@cache.command(
    "gc",
    epilog=examples("molsaki cache gc --dry-run", "molsaki cache gc attention/Qwen2.5-7B-Instruct --older-than 1w"),
)
@click.argument("spaces", metavar="[SPACE]...", nargs=-1)
@store_option
@click.option(
    "--older-than", default="1d", show_default=True, callback=read_age_option, metavar="AGE", help="Such as 12h or 2w."
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed and remove nothing.")
@click.option("--quiet", is_flag=True, help="No progress; errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def cache_gc(spaces: tuple[str, ...], store: Path | None, **options: Any) -> None:  # click's own types
    """Remove what no commit names: parts of killed writers, temporary files, what a repair withdrew.

    All spaces of the store, or those named. Without a name also what lies beside them: staging folders of killed
    imports and exports, and targets of spaces that are gone. What is younger than AGE stays, for somebody may be
    writing or reading it.
    """
    from pipeline.cache_commands import collect_garbage
    from pipeline.config import default_store

    collect_garbage(spaces, store or default_store(), **options)


@molsaki.group()
def plot() -> None:
    """Draw where the teacher looks, from the store alone; no model is loaded."""


def plot_options(*, layers: bool) -> Callable[[Command], Command]:
    """Add the options that figures share; they arrive as one `request`."""
    chosen = (
        click.option("--layer", type=click.IntRange(min=1), help="This layer, counted from 1.  [default: mean of all]"),
        click.option("--mixture", is_flag=True, help="The layers mixed as students learn them (Eq. 4)."),
    )
    temperature = click.option(
        "--tau", type=click.FloatRange(min=0, min_open=True), help="Temperature of Eq. 4.  [default: CONFIG's, or 0.1]"
    )

    def add(command: Command) -> Command:
        @functools.wraps(command)
        def with_request(**options: Any) -> Any:  # click's own types
            from pipeline.plot import PlotRequest

            names = PlotRequest.__annotations__.keys() & options.keys()
            return command(request=PlotRequest(**{name: options.pop(name) for name in names}), **options)

        for option in (
            click.option(
                "--json", "as_json", is_flag=True, help="Print the figures as JSON; --out may then be left out."
            ),
            temperature,
            *(chosen if layers else ()),
            click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of all runs."),
            click.option(
                "--set",
                "overrides",
                multiple=True,
                metavar="KEY=VALUE",
                help="Override one value of CONFIG; repeatable.",
            ),
            store_option,
            click.option(
                "--out", type=FILE, help="File to write, .png or .svg; a .json with the figures lies beside it."
            ),
            click.argument("what", metavar="CONFIG|SPACE"),
        ):
            with_request = option(with_request)
        return with_request  # type: ignore[return-value]

    return add


@plot.command(
    "shares",
    epilog=examples(
        "molsaki plot shares demo/molsaki.yaml --runs demo/runs --out shares.png",
        "molsaki plot shares attention/Qwen2.5-7B-Instruct --layer 12 --out layer-12.svg",
        "molsaki plot shares qwen.tar --mixture --json",
    ),
)
@plot_options(layers=True)
def plot_shares(request: "PlotRequest") -> None:
    """Share of each step's attention on critical words, other words and special tokens (Fig. 1b).

    CONFIG|SPACE is a configuration file or a run's folder (the records of that run), or a space (all its records): a
    folder, the beginning of a name in the store, a tar file, or an address such as s3://bucket/space.
    """
    from pipeline.plot import plot_shares as draw

    draw(request)


@plot.command(
    "record",
    epilog=examples(
        "molsaki plot record demo/molsaki.yaml --record 3fa9 --out record.svg",
        "molsaki plot record attention/Qwen2.5-7B-Instruct --record 3fa9 --mixture --out record.png",
    ),
)
@plot_options(layers=True)
@click.option("--record", "key", metavar="KEY", required=True, help="Which record; the beginning of its key will do.")
def plot_record(request: "PlotRequest", key: str) -> None:
    """Heat map of one record, steps × critical words (Fig. 1c, 2b); CONFIG|SPACE as in `molsaki plot shares`."""
    from pipeline.plot import plot_record as draw

    draw(request, key)


@plot.command(
    "layers",
    epilog=examples(
        "molsaki plot layers demo/molsaki.yaml --runs demo/runs --out layers.png",
        "molsaki plot layers attention/Qwen2.5-7B-Instruct --tau 0.5 --json",
    ),
)
@plot_options(layers=False)
def plot_layers(request: "PlotRequest") -> None:
    """Mean weights of the teacher's layers (Eq. 4), and of a run's students' (Eq. 5) after and during training.

    CONFIG|SPACE as in `molsaki plot shares`; only a configuration or a run's folder has students.
    """
    from pipeline.plot import plot_layers as draw

    draw(request)


@molsaki.group()
def bench() -> None:
    """Measure what the stages cost on this machine."""


def _separated(*, allowed: tuple[str, ...], numbers: bool = False) -> Callable[..., tuple[str, ...]]:
    """Check an option whose values are separated by commas."""

    def split(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
        values = tuple(value.strip() for value in text.split(","))
        for value in values:
            if value not in allowed and not (numbers and value.isdecimal() and int(value) > 0):
                expected = ", ".join((*(["numbers above zero"] if numbers else []), *allowed))
                raise click.BadParameter(f"expected {expected}, separated by commas; found {value!r}")
        return values

    return split


BENCH_METHODS = ("forward", "molsaki", "output_attentions", "one-by-one")
MORE_BENCH_METHODS = ("words",)
POSITIVE = click.IntRange(min=1)


@bench.command(
    "attention",
    epilog=examples(
        "molsaki bench attention",
        "molsaki bench attention --lengths 1024,4096,svamp --json > attention.json",
        "molsaki bench attention --preset 7b --device cuda --lengths 512,4096",
    ),
)
@click.option(
    "--lengths",
    default="1024,4096",
    show_default=True,
    callback=_separated(allowed=("svamp",), numbers=True),
    help="Tokens a record, a case each; `svamp` is a mix of lengths, steps and words as in SVAMP with rationales.",
)
@click.option("--words", type=POSITIVE, default=24, show_default=True, help="Critical words in a record.")
@click.option("--steps", type=POSITIVE, default=8, show_default=True, help="Reasoning steps in a record.")
@click.option("--records", type=POSITIVE, help="Records of a case.  [default: two full batches, two at least]")
@click.option(
    "--methods",
    default=",".join(BENCH_METHODS),
    show_default=True,
    callback=_separated(allowed=(*BENCH_METHODS, *MORE_BENCH_METHODS)),
    help="What to compare: the bare pass, ours, eager attention in the same batches, the same a record at a time; "
    "`words` is ours as a student needs it, without what the steps look at in all.",
)
@click.option(
    "--repeats", type=POSITIVE, default=5, show_default=True, help="Rounds; eager attention is in three at most."
)
@click.option("--model", metavar="PATH_OR_ID", help="A model of transformers instead of a random one.")
@click.option(
    "--preset", type=click.Choice(["7b"]), help="Shape of Llama-2-7B: 32 layers, width 4096, 32 heads of both kinds."
)
@click.option("--layers", type=POSITIVE, help="Layers of the random Llama.  [default: 8]")
@click.option("--width", type=POSITIVE, help="Its hidden size.  [default: 512]")
@click.option("--heads", type=POSITIVE, help="Its query heads.  [default: 8]")
@click.option("--kv-heads", type=POSITIVE, help="Its key-value heads.  [default: as many as query heads]")
@click.option(
    "--batch-tokens", type=POSITIVE, help="Tokens of a batch, padding included.  [default: 4096, on a GPU 8192]"
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="`auto` is the GPU where there is one.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Number format.  [default: float32, on a GPU bfloat16]",
)
@click.option("--threads", type=POSITIVE, help="Threads on a CPU.  [default: what torch takes]")
@click.option("--quiet", is_flag=True, help="No progress; errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def bench_attention(as_json: bool, quiet: bool, **options: Any) -> None:  # click's own types
    """Time and peak memory of stepwise attention, beside a bare forward pass and beside output_attentions=True.

    All methods see the same model and the same made-up records, in turns within one process; each has its memory
    measured in processes of its own. A ratio is that of a method to the one named beside it.
    """
    from pipeline.terminal import quieten_libraries

    quieten_libraries(quiet=True)
    from pipeline.bench import Request as BenchRequest
    from pipeline.bench import bench_attention as measure

    measure(BenchRequest(**options), as_json=as_json, quiet=quiet)


@bench.command(
    "cache",
    epilog=examples(
        "molsaki bench cache",
        "molsaki bench cache --records 2000 --index-records 0",
        "molsaki bench cache --teacher demo/teacher --out . --json > cache.json",
    ),
)
@click.option("--records", type=POSITIVE, default=20_000, show_default=True, help="Records that are written and read.")
@click.option("--layers", type=POSITIVE, help="Layers of each record.  [default: 32]")
@click.option(
    "--repeats",
    type=POSITIVE,
    default=3,
    show_default=True,
    help="Rounds; epochs in which the store decodes each record alone are in one.",
)
@click.option("--reads", type=POSITIVE, default=2000, show_default=True, help="Random reads in a round.")
@click.option(
    "--index-records",
    type=click.IntRange(min=0),
    default=500_000,
    show_default=True,
    help="Records of the store whose opening is measured; 0 leaves it out.",
)
@click.option(
    "--teacher", metavar="PATH_OR_ID", help="A model of transformers whose attention is taken, instead of a random one."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder on the file system to measure; a temporary folder is made in it.  [default: the system's]",
)
@click.option("--quiet", is_flag=True, help="No progress; errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def bench_cache(as_json: bool, quiet: bool, layers: int | None, **options: Any) -> None:  # click's own types
    """Bytes, files and times of a store and its memory map, beside one torch.save file a record.

    The texts are made-up problems; 128 of each shape are run through a random Llama with large weights (or --teacher),
    and the others take their attention with every value changed by about a tenth, so that zeros and exponents are like
    those of a real store and mantissas are all different. The same seed is taken every time. Everything is written into
    a temporary folder that is removed in the end. Without root, only the contents of files can be dropped from memory
    before they are opened, not their names and places.
    """
    from pipeline.terminal import quieten_libraries

    quieten_libraries(quiet=True)
    if layers is not None and options["teacher"] is not None:
        raise click.UsageError("--layers: a --teacher has its own; leave out one of the two")
    from pipeline.bench_cache import Request as CacheRequest
    from pipeline.bench_cache import bench_cache as measure

    measure(CacheRequest(layers=layers or 32, **options), as_json=as_json, quiet=quiet)


@bench.command(
    "rationales",
    epilog=examples(
        "molsaki bench rationales",
        "molsaki bench rationales --questions 4000 --max-tokens 128 --json > rationales.json",
        "molsaki bench rationales --layers 32 --width 4096 --heads 32 --kv-heads 8 --device cuda",
    ),
)
@click.option("--questions", type=POSITIVE, default=1000, show_default=True, help="Made-up questions in a run.")
@click.option(
    "--shots",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="Worked examples before each question.",
)
@click.option("--max-tokens", type=POSITIVE, default=64, show_default=True, help="Length of every output, in tokens.")
@click.option("--piece", type=POSITIVE, default=256, show_default=True, help="Questions per commit.")
@click.option("--repeats", type=POSITIVE, default=5, show_default=True, help="Rounds.")
@click.option("--layers", type=POSITIVE, default=4, show_default=True, help="Layers of the random teacher.")
@click.option("--width", type=POSITIVE, default=256, show_default=True)
@click.option("--heads", type=POSITIVE, default=8, show_default=True)
@click.option("--kv-heads", type=POSITIVE, help="Key-value heads.  [default: as many as heads]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="[default: bfloat16 on a GPU, float32 on a CPU]",
)
@click.option("--quiet", is_flag=True, help="No progress; errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def bench_rationales(as_json: bool, quiet: bool, **options: Any) -> None:  # click's own types
    """Throughput of the rationale stage beside a bare LLM.generate over the same prompts, by the same vLLM.

    `generate` gets all prompts at once; `stage` also makes them, judges what comes and commits it. vLLM forgets its
    prefixes before each round, and that both give the same texts is checked first.
    """
    from pipeline.terminal import quieten_libraries

    quieten_libraries(quiet=True)
    from pipeline.bench_rationales import Request as BenchRequest
    from pipeline.bench_rationales import bench_rationales as measure

    measure(BenchRequest(**options), as_json=as_json, quiet=quiet)


TRAIN_METHODS = ("dss", "molsaki", "output_attentions")


@bench.command(
    "train",
    epilog=examples(
        "molsaki bench train",
        "molsaki bench train --gradient-checkpointing --json > train.json",
        "molsaki bench train --preset 1b --device cuda --records 16",
    ),
)
@click.option("--length", type=POSITIVE, default=256, show_default=True, help="Tokens of an `explain` text.")
@click.option("--words", type=POSITIVE, default=24, show_default=True, help="Critical words in a record.")
@click.option("--steps", type=POSITIVE, default=8, show_default=True, help="Reasoning steps in a record.")
@click.option("--records", type=POSITIVE, default=8, show_default=True, help="Records of a batch.")
@click.option(
    "--methods",
    default=",".join(TRAIN_METHODS),
    show_default=True,
    callback=_separated(allowed=TRAIN_METHODS),
    help="What to compare: without attention, ours, and eager attention of the student in a pass of its own.",
)
@click.option(
    "--repeats", type=POSITIVE, default=7, show_default=True, help="Rounds; eager attention is in five at most."
)
@click.option(
    "--preset", type=click.Choice(["1b"]), help="Shape of TinyLlama: 22 layers, width 2048, 32 heads, 4 for keys."
)
@click.option("--layers", type=POSITIVE, help="Layers of the random student.  [default: 8]")
@click.option("--width", type=POSITIVE, help="Its hidden size.  [default: 512]")
@click.option("--heads", type=POSITIVE, help="Its query heads.  [default: 8]")
@click.option("--kv-heads", type=POSITIVE, help="Its key-value heads.  [default: as many as query heads]")
@click.option("--vocabulary", type=POSITIVE, default=32_000, show_default=True, help="Its vocabulary.")
@click.option("--gradient-checkpointing", is_flag=True, help="Compute layers again in the backward pass.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="`auto` is the GPU where there is one.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    help="Mixed precision.  [default: float32, on a GPU bfloat16]",
)
@click.option("--threads", type=POSITIVE, help="Threads on a CPU.  [default: what torch takes]")
@click.option("--quiet", is_flag=True, help="No progress; errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def bench_train(as_json: bool, quiet: bool, **options: Any) -> None:  # click's own types
    """Time and peak memory of a training step with the attention loss, beside one without.

    All methods take whole steps (both tasks, backward pass, AdamW) on the same student and batch, in turns within one
    process; each has its memory measured in processes of its own.
    """
    from pipeline.terminal import quieten_libraries

    quieten_libraries(quiet=True)
    from pipeline.bench_train import Request as BenchRequest
    from pipeline.bench_train import bench_train as measure

    measure(BenchRequest(**options), as_json=as_json, quiet=quiet)


def main() -> None:
    """Entry point of the command `molsaki`."""
    molsaki(prog_name="molsaki")


def _stage(
    request: Request,
    name: "StageName",
    *,
    seeds: tuple[int, ...] = (),
    split: Literal["test", "dev"] = "test",
    shard: "Shard | None" = None,
    totals: bool = False,
    supervised: bool,
) -> None:
    """Do one stage, or a shard of it, in this process, or say what it would do."""
    if (sweep := request.sweep()) is not None:
        if totals:
            raise click.UsageError("--totals goes with one run; name the configuration of a point of the matrix")
        _stage_one_of_points(sweep, request, name, shard)
        return
    from data.sharding import process_of
    from pipeline.inputs import Inputs
    from pipeline.progress import open_progress
    from pipeline.supervise import stop_with_parent
    from pipeline.terminal import quieten_libraries, stdout_to_stderr
    from pipeline.work import execute_stage, open_stages, shard_of
    from pipeline.work import train_share as train_this_share
    from stages.progress import SilentProgress, StopSignal

    with StopSignal() as stop:
        if supervised:
            stop_with_parent()
        share = process_of(os.environ)
        work = request.load(None if name == "train" else shard_of(name, shard), totals=totals)
        inputs = Inputs(work.config)

        def open_stage() -> "Stage":
            return open_stages(work, inputs, seeds=seeds, split=split)[name]

        inputs.check((name,))
        if request.dry_run:
            _print_plans(work, [open_stage().plan()], inputs, request)
            return
        if name == "train" and not share.is_main:
            train_this_share(work, seeds, progress=SilentProgress(), stop=stop)
            return
        quieten_libraries(quiet=request.quiet)
        with _log_of(work), stdout_to_stderr(), open_progress(quiet=request.quiet) as progress:
            plan = execute_stage(work, open_stage, progress=progress, stop=stop)
    if not supervised:
        _print_results(work, [plan], request, split=split)


def _stage_one_of_points(sweep: "Sweep", request: Request, name: "StageName", shard: "Shard | None") -> None:
    """Do one half of stage one for a matrix, each piece that its points share in a process of its own."""
    from pipeline.sweep_commands import run_points
    from pipeline.work import shard_of

    shard = shard_of(name, shard)
    run_points(sweep, (name,), request.options(), pass_on=() if shard is None else ("--shard", str(shard)))


def _students_of_points(
    request: Request,
    name: "StageName",
    *,
    seeds: tuple[int, ...],
    split: Literal["test", "dev"] = "test",
    shard: "Shard | None",
    report: Path | None,
    without: tuple[str, ...],
    supervised: bool,
) -> bool:
    """Train or evaluate the students of a matrix, or a shard of them, in this process; False where there is none."""
    if (sweep := request.sweep(shard)) is None:
        return False
    from pipeline.sweep_commands import StudentsRequest, work_points
    from pipeline.work import shard_of

    shard_of(f"{name} MATRIX")
    students = StudentsRequest(seeds=seeds, split=split, without=without, report=report, supervised=supervised)
    work_points(sweep, name, request.options(), students)
    return True


@contextmanager
def _log_of(work: "Run") -> Iterator[None]:
    """Write to the run's log, also if an error ends the command later."""
    from pipeline.logs import log_file

    click.get_current_context().ensure_object(Invocation).log = work.log
    with log_file(work.log):
        logging.getLogger(__name__).info("command: %s", shlex.join(sys.argv))
        yield


def _print_plans(work: "Run", plans: "list[StagePlan]", inputs: "Inputs", request: Request) -> None:
    """Print what is to do and what it would cost, after trying it where that is asked for."""
    from pipeline.costs import costs, take_samples
    from pipeline.provenance import read_provenance
    from pipeline.tables import print_plans

    samples = take_samples(work, plans, seconds=request.sample, quiet=request.quiet) if request.sample else {}
    print_plans(plans, costs(work, plans, inputs, read_provenance(work.folder), samples), as_json=request.as_json)


def _print_results(
    work: "Run", plans: "list[StagePlan]", request: Request, *, split: Literal["test", "dev"] = "test"
) -> None:
    """Print what a command achieved: the accuracies where it evaluated, and for machines the plans as well."""
    from pipeline.accuracies import scores_of
    from pipeline.student_stages import results_folder
    from pipeline.tables import print_json, print_scores

    evaluated = any(plan.name == "evaluate" and plan.done for plan in plans)
    scores = scores_of(work.config.name, results_folder(work.folder, split)) if evaluated else []
    if request.as_json:
        print_json({"run": work.folder, "stages": plans, "scores": scores})
    elif scores:
        print_scores(scores, as_json=False)
