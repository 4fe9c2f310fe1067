"""Figures from a store: numbers equal to a direct computation, files that any reader takes, text that stays text."""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from cache import open_attention
from cache.exchange.exporting import export_space
from cache.keys import record_key
from cache.spaces import Space
from cache.writer import AttentionBlock, AttentionWriter
from data.marking import mark
from data.records import Marked
from data.sets.synthetic import synthetic_questions
from pipeline.cli.main import molsaki
from pipeline.console.tables import one_line, step_label
from pipeline.views import figures
from pipeline.views.choose import choose
from pipeline.views.figures import layers as plot_layers
from stages.attention.tokens import locate
from stages.figures.attention_shares import GROUPS
from stages.toy.teacher import word_tokenizer
from tests.cache.test_step_totals import told_block
from tests.cache.test_verify import sound_block
from tests.cache.truth import make_space
from tests.pipeline.conftest import Experiment
from tests.stages.attention.test_write import extract

QUESTIONS = synthetic_questions(12, seed=0, split="train")
RECORDS = [mark(question.text, question.reference or "") for question in QUESTIONS]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model like the demo's, over its problems, not trained; a begin token stands in front of each text."""
    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = word_tokenizer(QUESTIONS)
    begin = [(tokenizer.eos_token, tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokenizer.eos_token} $A", special_tokens=begin
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def space(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The attention of that model over those problems, as the stage stores it."""
    return extract(teacher, tmp_path_factory.mktemp("store"), RECORDS)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(molsaki, [str(argument) for argument in arguments])


def plotted(*arguments: object) -> dict:
    result = run("plot", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def eager_shares(teacher: Path, record: Marked) -> Iterator[tuple[int, np.ndarray]]:
    """Number of each step and its share on critical, other and special tokens, layer by layer, token by token."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    model = AutoModelForCausalLM.from_pretrained(teacher, attn_implementation="eager", dtype=torch.float32)
    one = locate(tokenizer, record)
    with torch.no_grad():
        layers = model(torch.tensor(one.ids)[None], output_attentions=True, use_cache=False).attentions
    matrices = [attention[0].double().mean(dim=0).numpy() for attention in layers]
    critical = {token for tokens in one.tokens_of_word for token in tokens.tolist()}
    special = {token for token, (start, end) in enumerate(one.spans.tolist()) if start == end}
    question = sum(start < record.rationale_start for start, _ in record.step_spans)
    for step in range(one.steps):
        rows = np.flatnonzero(one.step_of_token == step)
        shares = np.zeros((len(layers), 3))
        for layer, matrix in enumerate(matrices):
            for row in rows:
                for column in range(len(one.ids)):
                    group = 0 if column in critical else 2 if column in special else 1
                    shares[layer, group] += matrix[row, column] / len(rows)
        yield (step - question if step < question else step - question + 1), shares


@pytest.mark.parametrize("layer", [None, 2])
def test_shares_by_step_equal_a_direct_computation(teacher: Path, space: Path, layer: int | None) -> None:
    """Fig. 1b on the demo's problems, against output_attentions=True and plain loops."""
    expected = defaultdict(list)
    for record in RECORDS:
        for number, shares in eager_shares(teacher, record):
            expected[number].append(shares.mean(axis=0) if layer is None else shares[layer - 1])
    found = plotted("shares", space, *(() if layer is None else ("--layer", layer)))
    assert (found["records"], found["not_counted"]) == (len(RECORDS), 0)
    assert found["layers"] == ("mean of all layers" if layer is None else "layer 2")
    assert [step["step"] for step in found["steps"]] == sorted(expected)
    for step in found["steps"]:
        values = np.array(expected[step["step"]])
        assert step["records"] == len(values)
        for place, group in enumerate(("critical", "other", "special")):
            low, high = np.quantile(values[:, place], (0.25, 0.75))
            wanted = (values[:, place].mean(), low, high)
            assert [step[group][name] for name in ("mean", "p25", "p75")] == pytest.approx(wanted, abs=1e-3)
        assert set(step["sinks"].values()) == {0.0}
    critical = [step["critical"]["mean"] for step in found["steps"]]
    assert max(critical) - min(critical) > 0.02


def test_the_teachers_mixture_weighs_layers_record_by_record(space: Path) -> None:
    store = open_attention(space)
    found = plotted("shares", space, "--mixture", "--tau", "0.5")
    assert found["layers"] == "layers mixed by Eq. 4 (tau 0.5)"
    values = defaultdict(list)
    for key, block in store.items():
        wide, totals = block.astype(np.float64), store.step_totals(key)
        change = np.abs(np.diff(wide, axis=2)).mean(axis=(1, 2))
        weights = np.exp(change / 0.5) / np.exp(change / 0.5).sum()
        question = sum(start < store.marked(key).rationale_start for start, _ in store.marked(key).step_spans)
        for step, tokens in enumerate(store.step_tokens(key)):
            number = step - question if step < question else step - question + 1
            values[number].append(weights @ totals.critical[:, step] / tokens)
    for step in found["steps"]:
        assert step["critical"]["mean"] == pytest.approx(np.mean(values[step["step"]]))
    assert found["steps"] != plotted("shares", space, "--mixture")["steps"]


def test_a_figure_and_its_numbers_lie_beside_each_other(space: Path, tmp_path: Path) -> None:
    for name in ("shares", "layers"):
        for suffix, begins in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
            out = tmp_path / "new folder" / f"{name}{suffix}"
            result = run("plot", name, space, "--out", out)
            assert result.exit_code == 0, result.output
            assert result.stdout == ""
            assert f"{out} written" in result.stderr
            assert out.read_bytes().startswith(begins)
            assert json.loads(out.with_suffix(".json").read_text()) == plotted(name, space)


@pytest.mark.parametrize("name", ["shares", "record", "layers"])
def test_the_same_numbers_give_the_same_svg(space: Path, tmp_path: Path, name: str) -> None:
    key = ("--record", next(iter(open_attention(space)))) if name == "record" else ()
    files = []
    for number in range(2):
        out = tmp_path / f"{number}.svg"
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pipeline", "plot", name, space, *key, "--out", out],
            capture_output=True, text=True, check=False, env={"PATH": "", "MPLCONFIGDIR": str(tmp_path)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        files.append(out.read_bytes())
    assert files[0] == files[1]
    assert b"<dc:date>" not in files[0]


def texts(path: Path) -> list[str]:
    return ["".join(found.itertext()) for found in ElementTree.parse(path).iter(f"{SVG}text")]


def test_a_heat_map_has_the_numbers_of_the_store(space: Path, tmp_path: Path) -> None:
    store = open_attention(space)
    for choice, layers in (((), "mean of all layers"), (("--layer", 3), "layer 3")):
        for key in list(store)[:2]:
            out = tmp_path / "record.svg"
            found = plotted("record", space, "--record", key[:12], *choice, "--out", out)
            block = store[key].astype(np.float64)
            np.testing.assert_allclose(found["attention"], block.mean(axis=0) if not choice else block[2], atol=1e-12)
            assert (found["key"], found["layers"]) == (key, layers)
            marked = store.marked(key)
            assert [word["text"] for word in found["words"]] == [marked.text[a:b] for a, b in marked.critical_spans]
            assert [tuple(step["span"]) for step in found["steps"]] == list(marked.step_spans)
            totals = store.step_totals(key)
            for step, shares in enumerate(one["shares"] for one in found["steps"]):
                assert sum(shares.values()) == pytest.approx(1)
                critical = totals.critical[:, step].mean() if not choice else totals.critical[2, step]
                assert shares["critical"] == pytest.approx(critical / totals.tokens[step])
            shown = texts(out)
            for step in found["steps"]:
                assert any(text.startswith(f"{step_label(step['step'])}   ") for text in shown)


HOSTILE = "Give $\\frac{1}{0}$ & <b>5</b> [red]now[/red] \x1b[31m\x00 \\alpha_5 漢字 \U0001f600 {x} %s 7.\n"


def hostile_space(tmp_path: Path) -> tuple[Path, str]:
    """A record whose text is markup to anyone who asks."""
    marked = mark(HOSTILE * 2, "So $5 and $7 are [bold]12[/bold]. The answer is $12.")
    steps, words = len(marked.step_spans), len(marked.critical_spans)
    block = AttentionBlock(
        key=record_key(marked),
        marked=marked,
        attention=np.random.default_rng(0).random((2, steps, words)).astype(np.float32),
        step_tokens=np.full(steps, 4 * words),
    )
    space = make_space(tmp_path)
    AttentionWriter(space).append([block])
    return space.path, block.key


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_text_of_data_sets_is_never_markup(tmp_path: Path, suffix: str) -> None:
    space, key = hostile_space(tmp_path)
    out = tmp_path / f"record{suffix}"
    result = run("plot", "record", space, "--record", key, "--out", out)
    assert result.exit_code == 0, result.output
    if suffix == ".svg":
        assert any("$\\frac{1}{0}$ & <b>5</b> [red]now[/red]" in text for text in texts(out))


def test_labels_are_one_line_without_control_characters() -> None:
    assert one_line("a\n b\t c") == "a b c"
    assert one_line("\x1b[31m$x$\x00") == "�[31m$x$�"
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("abcd", 4) == "abcd"
    assert (step_label(-2), step_label(3)) == ("−2", "3")


def test_records_without_totals_are_counted_and_the_command_is_named(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    AttentionWriter(space).append([sound_block(1), sound_block(2)])
    result = run("plot", "shares", space.path, "--json")
    assert result.exit_code == 1
    assert "all 2 records are stored without" in result.stderr
    assert "`molsaki attention CONFIG --totals`" in result.stderr
    AttentionWriter(space).append([told_block(3)])
    result = run("plot", "shares", space.path, "--json")
    assert result.exit_code == 0, result.output
    assert "2 of 3 records are stored without what this needs; `molsaki attention CONFIG --totals`" in result.stderr
    assert json.loads(result.stdout)["not_counted"] == 2


def test_learned_sinks_are_drawn_where_there_are_any(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    AttentionWriter(space).append([told_block(number) for number in range(4)])
    found = plotted("shares", space.path, "--out", tmp_path / "told.svg")
    assert all(step["sinks"]["mean"] > 0 for step in found["steps"])
    assert "learned sinks" in texts(tmp_path / "told.svg")
    for step in found["steps"]:
        assert sum(step[group]["mean"] for group in GROUPS) == pytest.approx(1)


def test_positions_that_few_records_have_are_in_the_numbers_and_not_drawn(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    blocks = [told_block(number) for number in range(40)]
    long = mark("Ann has 3.", "It is 4. It is 5. It is 6. It is 7.")
    words = len(long.critical_spans)
    receivers = np.zeros((2, 5, 3), dtype=np.float32)
    blocks.append(
        AttentionBlock(
            key=record_key(long),
            marked=long,
            attention=np.zeros((2, 5, words)),
            step_tokens=np.full(5, 3),
            receivers=receivers,
        )
    )
    AttentionWriter(space).append(blocks)
    found = plotted("shares", space.path, "--out", tmp_path / "few.svg")
    last = found["steps"][-1]
    assert (last["step"], last["records"]) == (4, 1)
    assert (last["critical"]["mean"], set(last["other"].values())) == (0, {1})
    shown = texts(tmp_path / "few.svg")
    assert "1" in shown and "4" not in shown
    assert any("fewer than 5% of 41 records left out" in text for text in shown)


def test_layer_weights_are_those_of_eq_4(space: Path) -> None:
    store = open_attention(space)
    found = plotted("layers", space)
    weights = []
    for block in store.values():
        change = np.abs(np.diff(block.astype(np.float64), axis=2)).mean(axis=(1, 2))
        weights.append(np.exp(change / 0.1) / np.exp(change / 0.1).sum())
    assert (found["records"], found["tau"], found["students"]) == (len(RECORDS), 0.1, [])
    for layer, spread in enumerate(found["teacher"]):
        column = np.array(weights)[:, layer]
        wanted = (column.mean(), *np.quantile(column, (0.25, 0.75)))
        assert (spread["mean"], spread["p25"], spread["p75"]) == pytest.approx(wanted)


def write_student(folder: Path, seed: int, weights: list[list[float]]) -> None:
    folder = folder / "student" / f"seed-{seed}"
    folder.mkdir(parents=True)
    table = pa.table(
        {"key": [f"{n}" for n in range(len(weights))], "teacher": [None] * len(weights), "student": weights}
    )
    pq.write_table(table, folder / "layer_weights.parquet")
    log = [{"step": 10, "layer_weights": [0.5, 0.5]}, {"step": 20, "layer_weights": [0.3, 0.7]}, {"train_loss": 1.0}]
    (folder / "training.json").write_text(json.dumps({"seed": seed, "log": log}))


def test_a_run_shows_its_students_layers_and_its_own_temperature(experiment: Experiment) -> None:
    experiment.run("--only", "rationales")
    experiment.run("--only", "attention")
    write_student(experiment.folder / "runs" / "small", 1, [[0.2, 0.8], [0.4, 0.6]])
    write_student(experiment.folder / "runs" / "small", 0, [[0.5, 0.5]])
    (experiment.folder / "runs" / "small" / "student" / "seed-7").mkdir()  # trained without attention
    found = plotted("layers", "run.yaml", "--set", "objective.tau_teacher=0.7", "--out", "layers.png")
    assert found["tau"] == 0.7
    assert [student["seed"] for student in found["students"]] == [0, 1]
    student = found["students"][1]
    assert [spread["mean"] for spread in student["layers"]] == pytest.approx([0.3, 0.7])
    assert (student["records"], student["steps"], student["course"]) == (2, [10, 20], [[0.5, 0.5], [0.3, 0.7]])
    assert Path("layers.png").read_bytes().startswith(b"\x89PNG")
    assert plotted("layers", "runs/small")["students"] == found["students"]


MATRIX = """\
matrix:
  - {objective.name: [dss]}
  - {objective.name: [molsaki], objective.alignment: [mixture, uniform]}
  - {attention.steps: [lines]}
"""


@pytest.fixture
def study(experiment: Experiment) -> Experiment:
    """A matrix of three points that share their attention, and of one that does not; two have students."""
    (experiment.folder / "run.yaml").write_text((experiment.folder / "run.yaml").read_text() + MATRIX)
    experiment.run("--only", "rationales")
    experiment.run("--only", "attention")
    for point, weights in (("mixture", [0.2, 0.8]), ("uniform", [0.5, 0.5])):
        for seed in (0, 1):
            write_student(Path("runs/small") / f"objective=molsaki,alignment={point}", seed, [weights])
    write_student(Path("runs/small/attention.steps=lines"), 0, [[1.0, 0.0]])
    return experiment


def test_a_matrix_shows_the_students_of_the_points_that_share_the_space_in_rows(study: Experiment) -> None:
    found = plotted("layers", "run.yaml", "--out", "layers.svg")
    assert [(one["run"], one["seed"], one["layers"][0]["mean"]) for one in found["students"]] == [
        ("molsaki, mixture", 0, 0.2),
        ("molsaki, mixture", 1, 0.2),
        ("molsaki, uniform", 0, 0.5),
        ("molsaki, uniform", 1, 0.5),
    ]
    shown = texts(Path("layers.svg"))
    assert sum(text.startswith("students after training, Eq. 5; seeds 0, 1") for text in shown) == 2
    assert [shown.count(point) for point in ("dss", "molsaki, mixture", "molsaki, uniform")] == [0, 2, 2]
    assert sum(text.startswith("teacher, Eq. 4") for text in shown) == 1
    assert plotted("layers", "runs/small") == found


def test_a_matrix_whose_points_have_several_spaces_draws_one_and_says_which(study: Experiment) -> None:
    (key, *_) = choose("run.yaml").keys
    expected = (
        "2 spaces; this is that of objective=dss and 2 more. For another, name the folder of a point, as runs/small/"
    )
    for arguments in (("plot", "layers"), ("plot", "record", "--record", key), ("cache", "show", "--record", key)):
        result = run(*arguments[:2], "run.yaml", *arguments[2:], "--json")
        assert result.exit_code == 0, result.output
        assert f"{expected}attention.steps=lines\n" in result.stderr
    lines = plotted("layers", "runs/small/attention.steps=lines")
    assert [one["run"] for one in lines["students"]] == ["attention.steps=lines"]
    shares = run("plot", "shares", "run.yaml", "--json")
    assert expected in shares.stderr and "all 10 records are stored without" in shares.stderr, "scripted ones are"


def test_more_points_than_can_be_drawn_are_in_the_numbers(
    study: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plot_layers, "MOST_ROWS", 1)
    found = plotted("layers", "run.yaml", "--out", "layers.svg")
    assert len(found["students"]) == 4
    shown = texts(Path("layers.svg"))
    assert sum("students after training" in text for text in shown) == 1
    assert any("the first 1 of 2 points" in text for text in shown)


def test_a_damaged_student_is_named(experiment: Experiment) -> None:
    experiment.run("--only", "rationales")
    experiment.run("--only", "attention")
    write_student(experiment.folder / "runs" / "small", 0, [[0.5, 0.5]])
    (experiment.folder / "runs" / "small" / "student" / "seed-0" / "layer_weights.parquet").write_bytes(b"no Parquet")
    result = run("plot", "layers", "run.yaml", "--json")
    assert result.exit_code == 65
    assert "seed-0/layer_weights.parquet: does not decode (ArrowInvalid" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "--out: name a file that ends in .png or .svg, or ask for the figures alone with --json"),
        (("--out", "shares.pdf"), "--out shares.pdf: expected a name that ends in .png or .svg"),
        (("--json", "--layer", 9), "--layer 9: expected 1 to 3, the layers of"),
        (("--json", "--layer", 1, "--mixture"), "--layer and --mixture: one or the other"),
        (("--json", "--layer", 1, "--tau", 1), "--tau: a temperature for mixing layers"),
    ],
)
def test_what_cannot_be_drawn_is_refused(space: Path, arguments: tuple[object, ...], line: str) -> None:
    result = run("plot", "shares", space, *arguments)
    assert result.exit_code == 2
    assert line in result.stderr


def test_a_tar_file_is_drawn_like_the_space_in_it(space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    export_space(Space.open(space), str(tmp_path / "space.tar"))
    assert plotted("shares", tmp_path / "space.tar")["steps"] == plotted("shares", space)["steps"]


def test_drawing_loads_no_model(space: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from pipeline.cli.main import molsaki
for name in ("shares", "layers"):
    try:
        molsaki(["plot", name, {str(space)!r}, "--mixture", "--out", "x.svg"][: 3 if name == "layers" else 4]
                + ["--out", {str(tmp_path / "x.svg")!r}], prog_name="molsaki")
    except SystemExit as end:
        assert not end.code
print([name for name in ("torch", "transformers", "vllm", "matplotlib.pyplot") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help_and_other_commands_load_no_matplotlib() -> None:
    code = """
import sys
from pipeline.cli.main import molsaki
for arguments in (["--help"], ["plot", "--help"], ["plot", "shares", "--help"], ["cache", "show", "--help"]):
    try:
        molsaki(arguments, prog_name="molsaki")
    except SystemExit as end:
        assert not end.code
print([name for name in ("torch", "zarr", "matplotlib", "numpy") if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


NEW_FIGURE = '''"""How many steps each record has."""

from dataclasses import dataclass

import click

from pipeline.views.plot import Plot


@dataclass(frozen=True, kw_only=True)
class Steps:
    steps: tuple[int, ...]


def build(request, chosen, least):
    numbers = [len(chosen.attention.marked(key).step_spans) for key in chosen.keys]
    return Steps(steps=tuple(number for number in numbers if number >= least))


def draw(numbers):
    from matplotlib.figure import Figure

    drawing = Figure()
    drawing.subplots().hist(numbers.steps)
    return drawing


PLOT = Plot(
    help="How many steps there are.",
    examples=("molsaki plot steps SPACE --least 2 --json",),
    build=build,
    draw=draw,
    options=(click.option("--least", type=int, default=0, help="Leave out records with fewer."),),
    layers=False,
)
'''


def test_a_new_file_in_the_folder_is_a_new_figure(space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "__path__", [*figures.__path__, str(tmp_path)])
    assert run("plot", "steps", space, "--json").exit_code == 2
    (tmp_path / "steps.py").write_text(NEW_FIGURE)
    try:
        assert "steps   How many steps there are.\n" in run("plot", "--help").stdout
        assert "--least INTEGER" in run("plot", "steps", "--help").stdout
        assert "--mixture" not in run("plot", "steps", "--help").stdout
        found = plotted("steps", space, "--least", 3, "--out", tmp_path / "steps.svg")
        assert sorted(found["steps"]) == sorted(n for record in RECORDS if (n := len(record.step_spans)) >= 3)
        assert json.loads((tmp_path / "steps.json").read_text()) == found
        assert (tmp_path / "steps.svg").read_bytes().startswith(b"<?xml")
    finally:
        sys.modules.pop("pipeline.views.figures.steps", None)
    (tmp_path / "steps.py").unlink()
    assert run("plot", "steps", space, "--json").exit_code == 2


def test_totals_are_recorded_once_more_only_when_asked_for(experiment: Experiment) -> None:
    """The scripted stage stores none; it is asked for all of them again, and for none without --totals."""
    experiment.run("--only", "rationales")
    experiment.run("--only", "attention")
    (before,) = (Space.open(folder) for folder in (experiment.folder / "store" / "attention").iterdir())
    assert len(before.commits()) == 1
    experiment.scripted.attention.clear()
    assert experiment("attention", "run.yaml").exit_code == 0
    assert experiment.scripted.attention == []
    plans = json.loads(experiment("attention", "run.yaml", "--totals", "--dry-run", "--json").stdout)
    assert [(plan["done"], plan["to_do"]) for plan in plans] == [(0, 10)]
    assert experiment("attention", "run.yaml", "--totals").exit_code == 0
    assert len(experiment.scripted.attention) == 10


def test_a_matrix_records_totals_once_for_the_points_that_share_them(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two rules for steps, each with two points, older parts hold all records without totals."""
    text = (experiment.folder / "run.yaml").read_text()
    (experiment.folder / "run.yaml").write_text(
        text + "matrix: {attention.steps: [periods, lines], objective.beta: [1, 3]}\n"
    )
    experiment.run("--only", "rationales")
    experiment.run("--only", "attention")
    experiment.scripted.attention.clear()
    assert experiment("attention", "run.yaml").exit_code == 0
    assert experiment.scripted.attention == []
    plans = json.loads(experiment("attention", "run.yaml", "--totals", "--dry-run", "--json").stdout)
    assert [(plan["done"], plan["to_do"]) for plan in plans["stages"]] == [(0, 20)]
    stage = experiment.scripted.write_attention.__globals__
    untold = stage["_block"]

    def told(marked: Marked) -> AttentionBlock:
        block = untold(marked)
        return replace(block, receivers=np.zeros((*block.attention.shape[:2], 3), dtype=np.float32))

    monkeypatch.setitem(stage, "_block", told)
    for shard in (("--shard", "1/2"), ("--shard", "2/2"), ()):
        result = experiment("attention", "run.yaml", "--totals", *shard)
        assert result.exit_code == 0, result.output
    assert len(experiment.scripted.attention) == len(set(experiment.scripted.attention)) == 20


def test_records_are_told_of_once_the_teacher_has_run_again(teacher: Path, tmp_path: Path) -> None:
    """Older parts stay as they are; a later one tells of their records."""
    path = extract(teacher, tmp_path / "new", RECORDS[:3])
    new = open_attention(path)
    old = Space.open_or_create(tmp_path / "old", "attention", new.space.slug, new.space.spec)
    for told in (False, True):
        AttentionWriter(old).append(
            [
                AttentionBlock(
                    key=key,
                    marked=new.marked(key),
                    attention=new[key],
                    step_tokens=new.step_tokens(key),
                    receivers=new.step_totals(key).receivers() if told else None,
                )
                for key in new
            ]
        )
        if not told:
            assert run("plot", "shares", old.path, "--json").exit_code == 1
    assert plotted("shares", old.path)["steps"] == plotted("shares", path)["steps"]
