"""The command `molsaki demo`: a whole run on made-up problems, or only the models that it makes.

In: options. Out: a folder that holds everything.
"""

from pathlib import Path

import click

from pipeline.cli.options import FOLDER, POSITIVE, examples
from pipeline.demo import ENGINES, make_models, run_demo


@examples(
    "molsaki demo",
    "molsaki demo --seeds 10        enough seeds for an interval that excludes zero",
    "molsaki demo --engine vllm     rationales by vLLM, which takes half a minute to start",
    "molsaki demo --models-only 4 --out study      the models of examples/study.yaml",
)
@click.command()
@click.option("--out", type=FOLDER, default=Path("demo"), help="Folder for everything it makes.")
@click.option("--seeds", type=POSITIVE, default=3, help="Students per objective.")
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default=ENGINES[0],
    help="What writes the rationales; they are the same.",
)
@click.option(
    "--models-only",
    type=POSITIVE,
    metavar="LAYERS",
    help="Make a teacher of so many layers and a student without weights, and stop there.",
)
def demo(out: Path, seeds: int, engine: str, models_only: int | None) -> None:
    """Run the whole pipeline on made-up word problems; needs no network and no GPU."""
    if models_only is not None:
        make_models(out=out, teacher_layers=models_only)
    else:
        run_demo(out=out, seeds=seeds, engine=engine)
