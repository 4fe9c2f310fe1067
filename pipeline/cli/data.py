"""The group `molsaki data`: questions, looked at before anything is paid for.

In: a configuration. Out: tables and sentences, or JSON, on stdout; rows that cannot be read are errors, all at once.
"""

from pathlib import Path

import click

from data.errors import DataError
from pipeline.check.gather import check_data
from pipeline.check.table import print_checks
from pipeline.cli.options import FILE, examples, json_option, quiet_option, set_option
from pipeline.config.matrix import load_matrix
from pipeline.console.progress import open_progress, quieten_libraries, stdout_to_stderr
from pipeline.console.tables import print_json


@click.group()
def data() -> None:
    """Look at the questions of a configuration before a teacher is paid for them."""


@examples(
    "molsaki data check examples/svamp.yaml",
    "molsaki data check examples/gsm8k.yaml --json > check.json",
    "molsaki data check examples/study.yaml         a matrix: the questions of all its points",
)
@data.command("check")
@click.argument("config", type=FILE)
@set_option
@json_option
@quiet_option
def check(config: Path, overrides: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Read all questions of CONFIG and say what is worth a look.

    That is: rows that cannot be read, kinds of answers, questions without answer, the same question twice or in
    training and test, answers that nobody can give, questions without critical words, lengths in tokens beside the
    limits of both models. No model is loaded. Rows that cannot be read are errors, after everything else is said.
    """
    matrix = load_matrix(config, overrides)
    quieten_libraries(quiet=quiet)
    with stdout_to_stderr(), open_progress(quiet=quiet) as progress:
        checks = check_data(matrix, progress)
    if as_json:
        print_json({"run": matrix.name, "checks": checks})
    else:
        print_checks(checks)
    if errors := dict.fromkeys(error for one in checks for error in one.errors):
        raise DataError("\n".join(errors))
