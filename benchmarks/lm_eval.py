"""lm-evaluation-harness on a student, by the folder that `molsaki export-task` writes, beside our own evaluation.

In: the folder of an evaluated run. Out: a table that says, of each way of asking the harness, how many of its texts and
verdicts are ours, record by record. The harness runs in an environment of its own, which is made once, with the
versions of transformers and torch that are installed here, or in one that `--environment` names.

    python -P benchmarks/lm_eval.py "demo/runs/demo/objective=molsaki"
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

import click

from cache.spaces import default_store
from pipeline.results.folder import RunFolder
from pipeline.results.predictions import read_predictions
from pipeline.tasks.export import Exported, export_task
from pipeline.tasks.lm_eval import VERSION

Answer: TypeAlias = tuple[str, bool]
"""What was written, and whether it counts as right."""
Key: TypeAlias = tuple[str, str, str]
"""Prompt, data set and id of the question."""
Answers: TypeAlias = Mapping[Key, Answer]
UNTIL = "until"


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of asking the harness."""

    name: str
    batch: int = 16
    dtype: str = "float32"
    generation: str = ""
    """Overrides of the task's `generation_kwargs`."""
    without_until: bool = False


def ways(crowding: int) -> list[Way]:
    """As the task says, and what becomes of it where something is otherwise."""
    return [
        Way(name="as written, batch size 1", batch=1),
        Way(name="as written, batch size 16"),
        Way(name="`until` left out", without_until=True),
        Way(name=f"`max_gen_toks={crowding}`, no room for the prompt", generation=f"max_gen_toks={crowding}"),
        Way(name="`repetition_penalty=1.1`, as inherited", generation="repetition_penalty=1.1"),
        Way(name="bfloat16, batch size 1", batch=1, dtype="bfloat16"),
        Way(name="bfloat16, batch size 16", dtype="bfloat16"),
    ]


def made_environment(folder: Path) -> Path:
    """The Python of an environment with the harness in it, made where it is not there."""
    python = folder / "bin" / "python"
    if not (folder / "bin" / "lm_eval").is_file():
        click.echo(f"making {folder}", err=True)
        same = [f"{name}=={version(name).partition('+')[0]}" for name in ("transformers", "torch")]
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)  # noqa: S603  our own command
        install = [str(python), "-m", "pip", "install", "--quiet", f"lm-eval[hf]=={VERSION}", *same]
        subprocess.run(install, check=True)  # noqa: S603
    return python


def asked(python: Path, student: Path, task: Exported, way: Way, scratch: Path) -> dict[Key, Answer]:
    """What the harness says of a student."""
    out, folder = scratch / "out", task.folder
    if way.without_until:
        folder = without_until(task.folder, scratch / "without")
    command = [
        *(str(python.with_name("lm_eval")), "--model", "hf", "--device", "cpu", "--log_samples"),
        *("--model_args", json.dumps({"pretrained": str(student), "dtype": way.dtype}), "--include_path", str(folder)),
        *("--tasks", task.tag, "--batch_size", str(way.batch), "--output_path", str(out)),
        *(("--gen_kwargs", way.generation) if way.generation else ()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise click.ClickException(f"{way.name}: {done.stderr.strip().splitlines()[-1]}")
    return dict(samples(out))


def samples(out: Path) -> Iterator[tuple[Key, Answer]]:
    """The harness's own records, by prompt and question."""
    for path in out.rglob("samples_*.jsonl"):
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line:
                found = json.loads(line)
                prompt = found["arguments"]["gen_args_0"]["arg_0"].partition(":")[0]
                doc = found["doc"]
                yield (prompt, doc["dataset"], doc["id"]), (found["resps"][0][0], bool(found["exact_match"]))


def without_until(task: Path, folder: Path) -> Path:
    """The task with `until` left to the harness."""
    folder.mkdir()
    for path in task.iterdir():
        lines = path.read_text(encoding="utf-8").split("\n")
        if path.suffix == ".yaml":
            start = next(number for number, line in enumerate(lines) if line.strip() == f"{UNTIL}:")
            end = next(number for number in range(start + 1, len(lines)) if not lines[number].strip().startswith("- "))
            lines = lines[:start] + lines[end:]
        (folder / path.name).write_text("\n".join(lines), encoding="utf-8")
    return folder


def ours(run: Path, seed: int) -> Answers:
    """What the run's evaluation has."""
    table = read_predictions([RunFolder(run).evaluation().predictions(seed)])
    columns = (table[name] for name in ("prompt", "dataset", "question_id", "output", "correct"))
    return {tuple(key): (text, right) for *key, text, right in zip(*columns, strict=True)}


def rows(way: Way, theirs: Answers, own: Answers) -> Iterator[str]:
    """A row of the table for each prompt."""
    if theirs.keys() != own.keys():
        raise click.ClickException(f"{way.name}: {len(theirs):,} records, expected our {len(own):,}")
    for prompt in dict.fromkeys(prompt for prompt, _, _ in own):
        pairs = [(theirs[key], own[key]) for key in own if key[0] == prompt]
        texts = sum(one[0] == other[0] for one, other in pairs)
        verdicts = sum(one[1] == other[1] for one, other in pairs)
        right, ours_right = (sum(pair[side][1] for pair in pairs) / len(pairs) for side in (0, 1))
        yield f"| {way.name} | {prompt} | {texts} of {len(pairs)} | {verdicts} | {right:.1%} | {ours_right:.1%} |"


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seed", default=0, show_default=True, help="Which of the run's students.")
@click.option("--environment", type=click.Path(path_type=Path), help="A virtual environment for the harness.")
@click.option("--short", is_flag=True, help="Only as the task says, in batches of 16.")
def main(run: Path, seed: int, environment: Path | None, short: bool) -> None:
    """Let lm-evaluation-harness measure a student of RUN, and hold every record against ours."""
    python = made_environment((environment or default_store() / "bench" / f"lm-eval-{VERSION}").absolute())
    student, own = RunFolder(run).student(seed).path.resolve(), ours(run, seed)
    with tempfile.TemporaryDirectory() as folder:
        task = export_task(str(run), run, Path(folder) / "task")
        click.echo(
            "| asked | prompt | equal texts | equal verdicts | accuracy there | ours |\n|---|---|---|---|---|---|"
        )
        positions = json.loads((student / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
        for number, way in enumerate(ways(positions - 20)):
            if short and way.name != "as written, batch size 16":
                continue
            scratch = Path(folder) / str(number)
            scratch.mkdir()
            click.echo("\n".join(rows(way, asked(python, student, task, way, scratch), own)))


if __name__ == "__main__":
    main()
