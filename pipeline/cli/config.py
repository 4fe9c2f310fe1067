"""The group `molsaki config`: configurations shown, described and begun."""

from pathlib import Path

import click

from pipeline.cli.options import FILE, examples, set_option
from pipeline.config.matrix import load_matrix
from pipeline.config.schema import schema_json
from pipeline.config.starter import write_starter
from pipeline.console.tables import print_json


@click.group()
def config() -> None:
    """Show, describe or start a configuration file."""


@examples("molsaki config show examples/svamp.yaml --set training.epochs=3")
@config.command("show")
@click.argument("path", metavar="CONFIG", type=FILE)
@set_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of YAML.")
def config_show(path: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print CONFIG with every default filled in, and its matrix as it is, after every point was checked."""
    matrix = load_matrix(path, overrides)
    if as_json:
        print_json(matrix.base.model_dump(mode="json") | ({} if matrix.single else {"matrix": matrix.written}))
    else:
        click.echo(matrix.yaml().rstrip())


@examples("molsaki config schema > molsaki.schema.json")
@config.command("schema")
def config_schema() -> None:
    """Print the JSON schema of a configuration file, for editors."""
    click.echo(schema_json())


@examples("molsaki config init my.yaml")
@config.command("init")
@click.argument("path", type=FILE, default=Path("molsaki.yaml"))
def config_init(path: Path) -> None:
    """Write a commented configuration to start from; a file that exists stays as it is."""
    write_starter(path)
    click.echo(f"{path} written; look it over, then: molsaki run {path} --dry-run", err=True)
