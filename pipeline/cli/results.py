"""The commands that look at what was made: `compare`, `report`, `explore`; and `push`, which gives a student away."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import FILE, FOLDER, POSITIVE, examples, json_option, root_option, runs_option, set_option
from pipeline.results.push import push_student
from pipeline.results.scores import base_of, evaluation_folders, print_scores, score_tables, unevaluated_points
from pipeline.results.scores import compare as compare_folders
from pipeline.views.choose import choose
from pipeline.views.explore import Selected, default_out, look_at, write_explorer
from pipeline.views.report import report_runs


@examples(
    "molsaki compare svamp-dss svamp-molsaki",
    "molsaki compare runs/svamp-dss /scratch/runs/svamp-molsaki --json",
    "molsaki compare study --base dss      all points of a matrix",
    "molsaki compare study --markdown      the same for a document",
)
@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@root_option
@click.option("--base", metavar="RUN", help="The run that differences are to.  [default: the first]")
@json_option
@click.option("--markdown", is_flag=True, help="Print tables for a Markdown document.")
def compare(runs: tuple[str, ...], root: Path, base: str | None, as_json: bool, markdown: bool) -> None:
    """Show accuracies of runs side by side, and their paired differences to one of them.

    The folder of a matrix stands for all of its points. Differences are taken question by question and seed by seed,
    over those that both have; the interval (95%) comes from resampling both. Below stand log-probabilities of what
    students should have written, where they were measured.
    """
    folders = evaluation_folders(runs, root)
    scores = compare_folders(folders, None if base is None else base_of(base, list(folders)))
    if missing := unevaluated_points(runs, root):
        click.echo(f"not evaluated yet: {', '.join(missing)}", err=True)
    if markdown and not as_json:
        click.echo("\n".join(table.markdown() for table in score_tables(scores)), nl=False)
        return
    print_scores(scores, as_json=as_json)


@examples(
    "molsaki explore examples/svamp.yaml             the records of a run, and where its students looked",
    "molsaki explore attention/Qwen2.5-7B-Instruct   all records of a space, as many as fit into 5 MB",
    "molsaki explore runs/svamp --search apples --records 2000 --out apples.html",
    "molsaki explore examples/study.yaml --students 3   a matrix: three seeds of each point, not one",
)
@click.command()
@click.argument("what", metavar="CONFIG|SPACE")
@click.option(
    "--out",
    type=FILE,
    help="The page.  [default: explore.html in the run's folder; for a space its name in the working directory]",
)
@click.option("--records", type=POSITIVE, help="So many at most.  [default: as many as fit into 5 MB]")
@click.option(
    "--keys", type=FILE, help="The records with these keys, one a line; all of them, unless --records says less."
)
@click.option("--search", metavar="TEXT", help="Only records with this in their text; capitals or not.")
@click.option(
    "--seed",
    type=int,
    help="Take them in a random order.  [default: those that students were asked about, then by the order of the run]",
)
@click.option(
    "--students",
    type=click.IntRange(min=0),
    help="So many of each run or point, the first seeds.  [default: all of a run, one of each point of a matrix]",
)
@click.option("--store", type=FOLDER, help="Where SPACE is looked for.  [default: the user's cache directory]")
@runs_option
@set_option
def explore(
    what: str,
    out: Path | None,
    students: int | None,
    store: Path | None,
    runs: Path,
    overrides: tuple[str, ...],
    **selected: Any,
) -> None:  # click's own types
    """Write one HTML page to look through records: texts, steps, critical words, and where a model looks.

    CONFIG is a configuration or the folder of a run, SPACE a folder, the beginning of a name in the store, a tar file
    or an address. The page holds everything that it shows and asks nobody for anything. No model is loaded.

    A matrix stands for all its points. Where these have their attention in several spaces (other rules, another
    teacher), it is that of one, which is said; the folder of a point names another.
    """
    chosen = choose(what, store=store, runs=runs, overrides=overrides)
    path = out or default_out(chosen)
    written = write_explorer(look_at(chosen, students), Selected(**selected), path)
    for note in chosen.notes:
        click.echo(note, err=True)
    left = f"; {chosen.missing:,} of the run are not stored yet" if chosen.missing else ""
    every = chosen.matrix is None and written.students == written.trained
    seen = "" if every else f", {written.students:,} of {written.trained:,} students"
    click.echo(f"{written.shown:,} of {written.wanted:,} records{seen}, {written.bytes / 1e6:.1f} MB{left}", err=True)
    if students is None and written.students < written.trained:
        click.echo("the first student of each point is in it; --students asks for more", err=True)
    click.echo(path)


@examples(
    "molsaki report svamp                        writes runs/svamp/report.html",
    "molsaki report svamp-dss svamp --out svamp.html",
    "molsaki report study --base dss             all points of a matrix",
)
@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@root_option
@click.option("--base", metavar="RUN", help="The run that differences are to.  [default: the first]")
@click.option("--out", type=FILE, help="File to write.  [default: report.html in the run's folder; of several, beside]")
@click.option("--json", "as_json", is_flag=True, help="Print path and all figures as JSON.")
def report(runs: tuple[str, ...], root: Path, base: str | None, out: Path | None, as_json: bool) -> None:
    """Put runs on one HTML page that needs nothing else: what was run, accuracies, losses, layer weights, cost.

    The folder of a matrix stands for all of its points. What is not there yet is said on the page; the same command
    writes it anew. Prints where the page is.
    """
    report_runs(runs, root, out=out, base=base, as_json=as_json)


@examples(
    "molsaki export-task svamp                             writes runs/svamp/lm-eval",
    "molsaki export-task runs/study/objective=dss --out dss-task",
)
@click.command("export-task")
@click.argument("run", metavar="RUN")
@root_option
@click.option("--out", type=FOLDER, help="The folder to write.  [default: lm-eval in the run's folder]")
def export_task(run: str, root: Path, out: Path | None) -> None:
    """Write the test of RUN as a task folder of lm-evaluation-harness, by which others get its numbers.

    A YAML for each data set and prompt, with our prompts and a regular expression for our answers, the questions as
    JSON Lines, and a README with the command, our accuracies, and what cannot be equal. The expressions judge all that
    the run's students wrote, and each verdict that is not ours is counted. Prints the folder. No model is loaded.
    """
    from pipeline.tasks.export import export_task as export

    exported = export(run, root, out)
    for note in exported.notes:
        click.echo(note, err=True)
    click.echo(exported.folder)


@examples(
    "molsaki push runs/svamp my-name/svamp-student",
    "molsaki push runs/svamp my-name/svamp-student --seed 2 --public",
)
@click.command()
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.argument("repository")
@click.option("--seed", type=int, default=0, help="Which of the run's students.")
@click.option("--public", is_flag=True, help="Make a new repository public; it is private otherwise.")
def push(run: Path, repository: str, seed: int, public: bool) -> None:
    """Upload one student of RUN, with its model card, to REPOSITORY on the Hugging Face hub.

    Nothing else ever does so. Needs HF_TOKEN in the environment, or `hf auth login` once.
    """
    click.echo(push_student(run, seed, repository, private=not public))
