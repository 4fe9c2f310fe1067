"""The command `molsaki`.

In: arguments. Out: tables or JSON on stdout, progress and errors on stderr, an exit code. Commands only read their
options and hand over; each is loaded when it is asked for, so that `molsaki --help` answers at once.
"""

from stages.runtime.early import end_while_loading, ignore_signals, raise_stopped, remember_signals

remember_signals()  # before everything that takes time to load
end_while_loading()

import os

import click

from pipeline.cli.lazy import LazyGroup
from pipeline.console.exits import ErrorsToExitCodes, Invocation
from stages.runtime.imports import end_without_searching

raise_stopped()
COMMANDS = {
    "demo": ("demo", "Run the whole pipeline on made-up word problems; needs no network and no GPU."),
    "run": ("run", "Do everything that CONFIG asks for, stage after stage, each in a process of its own."),
    "status": ("run", "Say what is done, what is missing, and what it would take: bytes on disk, memory and time."),
    "rationales": ("run", "Let the teacher explain the training questions."),
    "attention": ("run", "Record where the teacher looks, step by step, over questions and rationales."),
    "soft-labels": ("run", "Record what else the teacher could have written at each token of the rationales."),
    "train": ("run", "Train the students from the stored rationales and attention; the teacher is not loaded."),
    "evaluate": ("run", "Let the students answer, count what is right, and measure how likely they find it."),
    "compare": ("results", "Show accuracies of runs side by side, and their paired differences to one of them."),
    "explore": (
        "results",
        "Write one HTML page to look through records: texts, steps, critical words, and where a model looks.",
    ),
    "report": (
        "results",
        "Put runs on one HTML page that needs nothing else: what was run, accuracies, losses, layer weights, cost.",
    ),
    "convert-gguf": (
        "convert",
        "Write the model of a GGUF FILE as a plain FOLDER, for `teacher.model` and `student.model`.",
    ),
    "export-task": (
        "results",
        "Write the test of RUN as a task folder of lm-evaluation-harness, by which others get its numbers.",
    ),
    "push": ("results", "Upload one student of RUN, with its model card, to REPOSITORY on the Hugging Face hub."),
    "config": ("config", "Show, describe or start a configuration file."),
    "data": ("data", "Look at the questions of a configuration before a teacher is paid for them."),
    "cache": ("cache", "Look into the stores of rationales and attention."),
    "plot": ("plot", "Draw where the teacher looks, from the store alone; no model is loaded."),
    "bench": ("bench", "Measure what the stages cost on this machine."),
    "train-share": ("run", ""),
}
OVERVIEW = """\
\b
To begin:
  molsaki demo                  the whole pipeline on made-up problems
  molsaki config init my.yaml   a commented configuration to start from
  molsaki run my.yaml           do it; finished work is found and skipped

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 65 damaged data, 75 stopped after saving.
"""


SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}
"""Of all commands."""


class Molsaki(ErrorsToExitCodes, LazyGroup):
    """The commands, and what becomes of their errors."""


@click.group(cls=Molsaki, lazy=COMMANDS, epilog=OVERVIEW, context_settings=SETTINGS)
@click.version_option(package_name="molsaki")
@click.option("--debug", is_flag=True, envvar="MOLSAKI_DEBUG", help="Show tracebacks.")
@click.pass_context
def molsaki(ctx: click.Context, debug: bool) -> None:
    """Distil a teacher's chain of thought, and where it looked step by step, into a small student."""
    ctx.obj = Invocation(debug=debug)


def main() -> None:
    """Entry point of the command `molsaki`."""
    remember_signals()  # where this module was loaded by another process, of which this one is a fork
    end_without_searching()
    # pydantic would ask every installed package whether it is a plugin; our configuration wants none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        molsaki(prog_name="molsaki")
    finally:
        ignore_signals()
