"""Writes docs/reference.md: every command and every key of a configuration, from the program itself.

    python -P docs/make_reference.py

In: the commands as click has them, and the JSON schema of a configuration. Out: one Markdown file, the same on every
machine: nothing in it depends on the terminal, the home directory or the version of click. Commands and options that
are hidden stay out. `tests/test_reference.py` fails where the file is not what this would write.
"""

import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from data import errors
from pipeline.cli.main import molsaki
from pipeline.config.schema import schema_json

REFERENCE = Path(__file__).with_name("reference.md")
HEAD = """\
# Reference

Every command, exit code, key of a configuration and environment variable. What the commands are for
is told in the [other documents](../README.md#documents). `make reference` writes this file from the program itself.
"""
ARGUMENTS = {"integer range": "N", "integer": "N", "float range": "X", "float": "X", "text": "TEXT", "choice": "CHOICE"}
"""What stands for the value of an option, where it names nothing better, by click's name of its type."""
SHOWN_DEFAULT = re.compile(r"\s*\[default: (.*)\]$", re.DOTALL)
EXIT_CODES = {
    0: ("done", ""),
    1: ("failed", "read the line on stderr; the traceback of a bug is in `log.jsonl`"),
    2: ("wrong usage, configuration, data file or model", "the line says which key, or which file and line"),
    65: ("damaged data", "the message names the file; `molsaki cache verify SPACE --repair`, then the same again"),
    75: ("stopped by SIGTERM, SIGINT or SIGUSR1 after saving", "run the same command again"),
}
MADE_DEFAULTS = {"store": "`molsaki` in the user's cache directory (`XDG_CACHE_HOME`, else `~/.cache`)"}
"""Defaults that are another on each machine."""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "unset"}
ENVIRONMENT = {
    "MOLSAKI_DEBUG": "As `--debug`: show tracebacks.",
    "XDG_CACHE_HOME": "Folder of caches, of which the default store is one; unset is `~/.cache`.",
    "RANK": "With `WORLD_SIZE`, as torchrun sets them: which share of rationales and attention is this process's, or "
    "which of the processes that train one student it is.",
    "WORLD_SIZE": "How many processes there are.",
    "LOCAL_RANK": "Which GPU of the machine is this process's, counted from 0.",
    "CUDA_VISIBLE_DEVICES": "Which GPUs there are, for this process and those that it starts.",
    "OPENAI_API_KEY": "Key of a server (`rationales.engine: openai`); it is read from nowhere else.",
    "OPENAI_BASE_URL": "Address of the server where `rationales.server` is unset.",
    "RAY_ADDRESS": "Ray cluster (`rationales.engine: ray`) where `rationales.ray_address` is unset.",
    "HF_TOKEN": "Key of the Hugging Face hub, for `molsaki push` and gated models.",
    "HF_HOME": "Where models and data sets of the hub are kept.",
    "HF_HUB_OFFLINE": "1 where there is no network: what is not kept already is an error.",
    "WANDB_MODE": "`online` lets wandb (`training.report_to`) upload while it trains; unset is offline.",
}

Schema = Mapping[str, Any]


def main() -> None:
    """Write the file."""
    REFERENCE.write_text(reference(), encoding="utf-8")


def reference() -> str:
    """The whole file as text."""
    blocks = [HEAD.rstrip(), *command_part(), *exit_code_part(), *configuration_part(), *environment_part()]
    return "\n\n".join(blocks) + "\n"


def command_part() -> Iterator[str]:
    """An overview of all commands, then each of them."""
    found = list(commands(molsaki, click.Context(molsaki, info_name="molsaki"), "molsaki"))
    yield "## Commands"
    yield "Each has `-h` and `--help`."
    below = [(name, summary(command)) for name, command, _ in found if command is not molsaki]
    listed = [(f"[{name}](#{name.replace(' ', '-')})", text) for name, text in below]
    yield table(("command", "what it does"), listed)
    for name, command, context in found:
        yield from one_command(name, command, context)


def commands(
    command: click.Command, context: click.Context, name: str
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """A command and those below it, each with its whole name; hidden ones are left out."""
    yield name, command, context
    group = command if isinstance(command, click.Group) else None
    names = group.list_commands(context) if group else list(getattr(command, "commands", {}))
    for below in names:
        found = group.get_command(context, below) if group else command.commands[below]  # type: ignore[attr-defined]
        if found is not None and not found.hidden:
            yield from commands(found, click.Context(found, info_name=below, parent=context), f"{name} {below}")


def one_command(name: str, command: click.Command, context: click.Context) -> Iterator[str]:
    """Heading, usage, help, options and examples of one command."""
    yield f"### {name}"
    yield f"    {name} {' '.join(command.collect_usage_pieces(context))}"
    yield from paragraphs(command.help or "")
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    if options:
        yield table(("option", "what it says", "default"), [option_row(option) for option in options])
    if command is not molsaki and command.epilog:
        yield "```bash\n" + "\n".join(example_lines(command.epilog)) + "\n```"


def example_lines(epilog: str) -> Iterator[str]:
    """Command lines to copy: what stands behind a wide gap in the help is said in a comment."""
    for line in inspect.cleandoc(epilog.replace("\b", "")).splitlines()[1:]:
        yield re.sub(r"\s{3,}", "  # ", line.strip(), count=1)


def summary(command: click.Command) -> str:
    """The first sentence of a command's help."""
    sentence = re.split(r"\.(?:\s+(?=[A-Z])|\s*$|\n\s*\n)", inspect.cleandoc(command.help or ""), maxsplit=1)[0]
    return " ".join(sentence.split())


def option_row(option: click.Option) -> tuple[str, str, str]:
    """How an option is written, what it says, and what holds without it."""
    text = " ".join((option.help or "").split())
    said = SHOWN_DEFAULT.search(text)
    text = SHOWN_DEFAULT.sub("", text)
    if isinstance(option.type, click.Choice):
        choices = ", ".join(f"`{choice}`" for choice in option.type.choices)
        text = f"{text} One of {choices}.".strip()
    if option.envvar:
        text = f"{text} Also by `{option.envvar}` in the environment."
    return f"`{written(option)}`", text, default_of(option, said and said.group(1))


def written(option: click.Option) -> str:
    """`--set KEY=VALUE`, `--quiet`."""
    names = ", ".join(option.opts)
    return names if option.is_flag or option.count else f"{names} {argument_of(option)}"


def argument_of(option: click.Option) -> str:
    """What stands for the value of an option."""
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Path):
        return "FILE" if option.type.file_okay else "FOLDER"
    return ARGUMENTS[option.type.name]


def default_of(option: click.Option, said: str | None) -> str:
    """The default as the help says it, as the option shows it, or nothing."""
    if option.required:
        return "needed"
    if said is not None:
        return said
    return f"`{option.default}`" if option.to_info_dict()["default"] is not None and not option.is_flag else ""


def exit_code_part() -> Iterator[str]:
    """The codes that a command may end with, and the errors behind them."""
    families: dict[int, list[str]] = {code: [] for code in EXIT_CODES}
    for name, found in vars(errors).items():
        if inspect.isclass(found) and issubclass(found, errors.MolsakiError) and found is not errors.MolsakiError:
            families[found.exit_code].append(f"`{name}`")
    yield "## Exit codes"
    rows = [(str(code), *EXIT_CODES[code], ", ".join(names)) for code, names in families.items()]
    yield table(("code", "meaning", "what to do", "errors (`data/errors.py`)"), rows)


def configuration_part() -> Iterator[str]:
    """The keys of a configuration: those at its top, then section by section, then what sections are made of."""
    whole: Schema = json.loads(schema_json())
    definitions: Mapping[str, Schema] = whole["$defs"]
    sections = {name: resolved(below, definitions) for name, below in whole["properties"].items()}
    plain = {name: below for name, below in sections.items() if not below.get("properties")}
    yield "## Configuration"
    yield (
        "A YAML file. `molsaki config init my.yaml` writes one with every key, `molsaki config show CONFIG` fills in\n"
        "the defaults. A key that does not exist is refused, and the nearest one named that does."
    )
    yield keys_table("", {"properties": plain, "required": whole["required"]}, definitions)
    for name, section in sections.items():
        if name not in plain:
            yield f"### {name}"
            yield from paragraphs(section["description"])
            yield keys_table(f"{name}.", section, definitions)
    for title, section in listed_records(sections.values(), definitions).items():
        yield f"### An entry of {title}"
        yield from paragraphs(section["description"])
        yield keys_table("", section, definitions)


def resolved(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """A schema with what it refers to, which its own entries take precedence over."""
    reference = schema.get("$ref")
    return schema if reference is None else {**definitions[reference.rpartition("/")[2]], **schema}


def listed_records(sections: Iterator[Schema] | Any, definitions: Mapping[str, Schema]) -> dict[str, Schema]:
    """Records that stand in lists, such as the sources of `data`, by the keys of those lists."""
    keys: dict[str, list[str]] = {}
    for section in sections:
        for name, below in section.get("properties", {}).items():
            if reference := below.get("items", {}).get("$ref"):
                keys.setdefault(reference, []).append(f"`{name}`")
    return {", ".join(names): resolved({"$ref": reference}, definitions) for reference, names in keys.items()}


def keys_table(before: str, section: Schema, definitions: Mapping[str, Schema]) -> str:
    """All keys of a section, those of the sections in it as `section.key`."""
    return table(("key", "value", "default", "what it says"), list(key_rows(before, section, definitions)))


def key_rows(before: str, section: Schema, definitions: Mapping[str, Schema]) -> Iterator[tuple[str, str, str, str]]:
    """A row for each key."""
    for name, written_below in section["properties"].items():
        below = resolved(written_below, definitions)
        needed = name in section.get("required", ())
        default = "needed" if needed else MADE_DEFAULTS.get(before + name) or shown_default(below)
        about = " ".join(str(below.get("description", "")).split())
        yield f"`{before}{name}`", type_of(below, definitions), default, about
        for option in below.get("anyOf", [below]):
            inner = resolved(option, definitions)
            if inner.get("properties"):
                yield from key_rows(f"{before}{name}.", inner, definitions)


def shown_default(schema: Schema) -> str:
    """The default of a key as YAML writes it; of a section its keys say it."""
    if schema.get("properties"):
        return ""
    value = schema.get("default", {} if schema.get("type") == "object" else None)
    return "unset" if value is None else f"`{flow(value)}`"


def flow(value: Any) -> str:
    """A value as it stands in a file, on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(flow, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def type_of(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    """What may stand there, in words."""
    schema = resolved(schema, definitions)
    if "anyOf" in schema:
        found = [type_of(option, definitions) for option in schema["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(found))
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if schema.get("type") == "array":
        return list_of(schema, definitions)
    if schema.get("type", "object") == "object":
        return "mapping"
    bounds = [f"{sign} {flow(schema[name])}" for name, sign in BOUNDS.items() if name in schema]
    return " ".join((TYPES[schema["type"]], ", ".join(bounds))).strip()


def list_of(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    """A list, and of what."""
    if "prefixItems" in schema:
        return f"[{', '.join(type_of(one, definitions) for one in schema['prefixItems'])}]"
    return f"list of {type_of(schema['items'], definitions)}"


def environment_part() -> Iterator[str]:
    """Variables that the program, or a library on its behalf, reads."""
    yield "## Environment"
    yield table(("variable", "what it says"), [(f"`{name}`", text) for name, text in ENVIRONMENT.items()])
    yield (
        "Proxies and certificates of servers are those of `HTTPS_PROXY`, `NO_PROXY` and `SSL_CERT_FILE`. Variables of\n"
        "the tests stand in [CONTRIBUTING.md](../CONTRIBUTING.md)."
    )


def paragraphs(text: str) -> Iterator[str]:
    """A text paragraph by paragraph, each as lines of one width."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        yield textwrap.fill(" ".join(paragraph.split()), 120, break_long_words=False, break_on_hyphens=False)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell is written so that it does not end the cell."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    main()
