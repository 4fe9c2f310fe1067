"""Documents that cannot go stale unnoticed: commands, names, links, configurations and Python in them are checked."""

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
import yaml

from cache.keys import record_key
from cache.spaces import Space
from cache.writer import AttentionBlock, AttentionWriter
from data.errors import ConfigError
from data.marking import mark
from data.readers import read_questions
from data.settings import DataSource
from pipeline.cli.main import molsaki
from pipeline.config.load import load_config
from tests.fakes import tiny_model_folder
from tests.test_imports import ROOMS, WITHIN

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("requirements/*.md")])
EXAMPLES = sorted(ROOT.glob("examples/*.yaml"))
README, METHOD, REFERENCE = ROOT / "README.md", ROOT / "docs" / "method.md", ROOT / "docs" / "reference.md"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED_YAML = re.compile(r"^( *)```yaml\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE_COMMAND = re.compile(r"`(molsaki [^`]+)`")
LINE_COMMAND = re.compile(r"^(?:[#\s$]*)(molsaki (?!is\b)[a-z].*)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED = re.compile(r"`([\w./-]+\.py)::([\w.]+)`")
PLACE = re.compile(r"`((?:benchmarks|cache|data|examples|pipeline|stages|tests)/[\w./-]*)`")


def visible(group: click.Group) -> dict[str, click.Command]:
    """The commands of a group that its help shows."""
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None and not command.hidden}


SUBCOMMANDS = visible(molsaki).keys()


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """A command as a document shows it, without comment, `&` and shell variables."""

    document: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}: {shlex.join(self.words)}"


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(text_of(path)) if found == language]


def shown_commands(path: Path) -> Iterator[CommandLine]:
    """Commands in backquotes and on lines of their own; "  explanation", "# comment" and "> file" behind are left out.

    The reference says in backquotes what the help of commands says; of it the examples are taken.
    """
    text = text_of(path)
    lines = text if path.suffix == ".yaml" else "\n".join(body for _, body in FENCE.findall(text))
    inline = () if path == REFERENCE else INLINE_COMMAND.findall(FENCE.sub("", text))
    for shown in (*inline, *LINE_COMMAND.findall(lines)):
        plain = re.split(r"\s{2,}|\s#|\s&$|\s>\s", shown)[0]
        words = shlex.split(re.sub(r"\$\{?\w+\}?", "1", plain))
        if "…" not in plain and words[1] in SUBCOMMANDS:
            yield CommandLine(document=str(path.relative_to(ROOT)), words=tuple(words[1:]))


COMMAND_LINES = [command for path in (*DOCUMENTS, *EXAMPLES) for command in shown_commands(path)]


def parse(words: tuple[str, ...]) -> click.Context:
    """Let click parse a command line as if it were run; nothing is executed."""
    group: click.Group = molsaki
    context: click.Context | None = None
    while True:
        command = group.get_command(context or click.Context(group), words[0])
        if command is None:
            raise click.UsageError(f"no command {words[0]}")
        if not isinstance(command, click.Group):
            return command.make_context(words[0], list(words[1:]), parent=context)
        group, words = command, words[1:]
        context = click.Context(command, info_name=words[0])


def test_documents_show_commands_to_check() -> None:
    assert {command.document for command in COMMAND_LINES} >= {"README.md", "docs/method.md", "examples/svamp.yaml"}
    shown = {command.words[0] for command in COMMAND_LINES if command.document == "docs/reference.md"}
    assert shown == SUBCOMMANDS, "the reference has an example of every command"


@pytest.mark.parametrize("command", COMMAND_LINES, ids=str)
def test_shown_command_is_one_that_the_command_line_takes(command: CommandLine) -> None:
    context = parse(command.words)
    config = context.params.get("config")
    if config is not None and (ROOT / config).is_file():
        load_config(ROOT / config, context.params["overrides"])


@pytest.mark.parametrize(
    "line", ["run", "run a.yaml --onyl train", "run a.yaml --only training", "cache list", "demo --seeds none"]
)
def test_a_command_that_does_not_exist_would_be_noticed(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(tuple(line.split()))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_configuration_is_valid(path: Path) -> None:
    load_config(path)


@pytest.mark.parametrize("name", ["data.md", "sweeps.md"])
def test_shown_configuration_is_valid(name: str, tmp_path: Path) -> None:
    shown = blocks(ROOT / "docs" / name, "yaml")
    assert shown
    for body in shown:
        file = tmp_path / "shown.yaml"
        file.write_text(f"name: shown\nteacher: {{model: t}}\nstudent: {{model: s}}\n{body}")
        load_config(file)
        file.write_text(file.read_text().replace("svamp, path", "svamp, paht"))
        with pytest.raises(ConfigError, match="did you mean"):
            load_config(file)


@pytest.mark.parametrize("name", ["objectives.md", "rationales.md", "soft-labels.md"])
def test_shown_parts_of_configurations_are_valid(name: str, tmp_path: Path) -> None:
    shown = [textwrap.dedent(body) for _, body in INDENTED_YAML.findall(text_of(ROOT / "docs" / name))]
    assert shown
    for body in shown:
        given = {
            "name": "shown",
            "data": {"train": [{"name": "synthetic"}]},
            "teacher": {"model": "t"},
            "student": {"model": "s"},
        }
        file = tmp_path / "shown.yaml"
        file.write_text(yaml.safe_dump(given | yaml.safe_load(body)))
        if "hard-tokens" not in body:  # of a package that is not installed
            load_config(file)


def test_shown_questions_of_a_users_own_can_be_read(tmp_path: Path) -> None:
    (body,) = blocks(ROOT / "docs" / "data.md", "json")
    (tmp_path / "own.jsonl").write_text(body)
    questions = read_questions(DataSource(name="jsonl", path=str(tmp_path / "own.jsonl")))
    assert [(question.answer, question.answer_kind) for question in questions] == [("5", "number"), ("B", "choice")]


def test_the_readme_is_short_and_lists_every_document() -> None:
    assert len(README.read_bytes()) <= 10_000
    linked = {link.partition("#")[0] for link in LINK.findall(text_of(README))}
    named = {str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")}
    assert named <= linked, f"no link to {sorted(named - linked)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_named_in_documents_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^\$ )make ([a-z-]+)", text_of(document), re.MULTILINE)) <= targets


def names_in(path: Path) -> set[str]:
    """Functions, classes, methods as `Class.method`, and constants of a module."""
    found: set[str] = set()
    for node in ast.parse(text_of(path)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_the_map_for_contributors_has_every_room_in_its_order() -> None:
    text = text_of(ROOT / "CONTRIBUTING.md").replace("/", ".")
    assert re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE) == [room for room in ROOMS if "__" not in room]
    within = re.findall(r"^\| └ (.+?) \|", text, re.MULTILINE)
    assert set(re.findall(r"`([\w.]+)`", " ".join(within))) == set(WITHIN)


def test_functions_and_tests_named_in_documents_exist() -> None:
    for document in DOCUMENTS:
        for file, name in NAMED.findall(text_of(document)):
            assert (ROOT / file).is_file(), f"{document.name} names {file}"
            assert name in names_in(ROOT / file), f"{document.name} names {file}::{name}"


@pytest.mark.parametrize(
    "document",
    [path for path in (README, *ROOT.glob("docs/**/*.md")) if path.name != "log.md"],
    ids=lambda path: path.name,
)
def test_files_and_folders_named_in_documents_exist(document: Path) -> None:
    """The log tells of files as they were called then."""
    for place in PLACE.findall(text_of(document)):
        assert (ROOT / place).exists() or (ROOT / f"{place}.py").is_file(), f"{document.name} names {place}"


@pytest.mark.parametrize("equation", [f"Eq. {number}" for number in range(2, 8)])
def test_every_equation_has_a_function_and_a_test(equation: str) -> None:
    (row,) = (line for line in text_of(METHOD).splitlines() if line.startswith(f"| {equation} |"))
    files = [file for file, _ in NAMED.findall(row)]
    assert any(file.startswith("stages/") for file in files)
    assert any(file.startswith("tests/") for file in files)


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(FENCE.sub("", text_of(document))):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A space of attention with two records."""
    made = Space.open_or_create(tmp_path, "attention", "tiny", {"schema": 1})
    records = [mark("Ann has 3 figs and 8 pens.", f"{number} + 1. The answer is 4.") for number in (3, 5)]
    writer = AttentionWriter(made)
    writer.append(
        [
            AttentionBlock(
                key=record_key(marked),
                marked=marked,
                attention=np.random.default_rng(0).random((2, len(marked.step_spans), len(marked.critical_spans))),
                step_tokens=np.ones(len(marked.step_spans), dtype=np.int32),
            )
            for marked in records
        ],
        {},
    )
    return made.path


def run_python(document: Path, space: Path, models: dict[str, Path]) -> dict[str, object]:
    """Run the code of a document with stand-ins for the space and the models that it names; return its variables."""
    code = "\n".join(blocks(document, "python"))
    named = {"/shared/molsaki/attention/Qwen2.5-7B-Instruct-numbers-0123456789abcdef": space, **models}
    for name, stand_in in named.items():
        assert f'"{name}"' in code
        code = code.replace(f'"{name}"', repr(str(stand_in)))
    found: dict[str, object] = {}
    exec(compile(code, str(document), "exec"), found)
    return found


def test_python_in_the_readme_runs(space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = tiny_model_folder(tmp_path / "teacher", "qwen2", layers=3)
    found = run_python(README, space, {"Qwen/Qwen2.5-0.5B-Instruct": teacher})
    assert found["block"].shape == (3, 4, 6)  # type: ignore[attr-defined]
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.endswith("(2, 3, 5)")]) == 2, lines


def test_python_in_its_own_document_runs(space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = tiny_model_folder(tmp_path / "teacher", "qwen2", layers=3)
    student = tiny_model_folder(tmp_path / "student", "gpt2", seed=1)
    models = {"Qwen/Qwen2.5-0.5B-Instruct": teacher, "TinyLlama/TinyLlama-1.1B-Chat-v1.0": student}
    found = run_python(ROOT / "docs" / "python.md", space, models)
    assert capsys.readouterr().out.startswith("2 records, 2 layers\n")
    assert len(found["table"]) == 2  # type: ignore[arg-type]
    assert found["layers"] == 3
    assert found["loss"].item() > 0  # type: ignore[attr-defined]
    assert found["student"].transformer.h[0].attn.c_attn.weight.grad.abs().sum() > 0  # type: ignore[attr-defined]


def test_licence_is_the_one_that_the_package_names() -> None:
    assert "Apache License\n                           Version 2.0" in text_of(ROOT / "LICENSE")
    assert 'license = "Apache-2.0"' in text_of(ROOT / "pyproject.toml")
