"""The table of commands: what it says of each is what the command says of itself, and nothing is loaded for it."""

import click
import pytest

from pipeline.cli.lazy import short_help
from pipeline.cli.main import COMMANDS, molsaki


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_of_a_command_what_its_help_begins_with(name: str) -> None:
    command = molsaki.get_command(click.Context(molsaki), name)
    assert command is not None and command.name == name
    shown = COMMANDS[name][1]
    assert command.hidden == (not shown)
    if shown:
        assert short_help(shown, 60) == command.get_short_help_str(60)


def test_an_unknown_command_is_refused_and_a_similar_one_named() -> None:
    with pytest.raises(click.UsageError, match="No such command 'attentoin'"):
        molsaki.main(["attentoin"], standalone_mode=False)
