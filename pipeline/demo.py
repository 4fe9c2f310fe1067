"""`molsaki demo`: the whole pipeline on made-up word problems, on any machine, without network.

In: a folder and a number of seeds. Out, in that folder: a tiny teacher trained on the spot, its rationales and its
attention in a store, students with and without the attention loss, a table and a report that compare them. Everything
after the teacher is done by `molsaki run` as for a real model; finished work is found and skipped.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import click

from data.sets.synthetic import synthetic_questions
from pipeline.console.exits import StageProcessError
from pipeline.console.progress import duration, open_progress, quieten_libraries
from pipeline.results.folder import RunFolder
from pipeline.run.processes import ForwardingStop, our_command
from pipeline.views.report import write_report
from stages.runtime.imports import importing
from stages.runtime.progress import Progress, StopSignal

if TYPE_CHECKING:
    from stages.toy.teacher import ModelShape, Recipe

NAME = "demo"
ENGINES = ("transformers", "vllm")
MOST_JOBS = 8
TEACHER_LAYERS = 2
TEACHER_QUESTIONS, TRAINING_QUESTIONS, TEST_QUESTIONS = 30_000, 250, 500
# A stream of questions of its own for each purpose; train, dev and test share no question, whatever the seeds.
TEACHER_SEED, TRAINING_SEED, TEST_SEED = 1, 5, 6
MADE = "made.json"
OF_PIECES = "student-pieces"
VOCABULARY_OF_PIECES = 340
TEMPLATE = Path(__file__).with_suffix(".yaml")


def run_demo(*, out: Path, seeds: int, engine: str) -> None:
    """Train the teacher, run both stages, compare the two objectives, and say what to do next.

    `engine` writes the rationales, which are the same by either; vLLM takes a good half minute to start.
    """
    quieten_libraries(quiet=True)
    started = time.monotonic()
    with ForwardingStop() as stop:
        _say("1/2  A teacher of 0.4 million weights learns to reason about made-up word problems.")
        _make_models(out, stop, TEACHER_LAYERS)
        file, jobs = _write_configuration(out, range(seeds), engine), jobs_at_a_time(seeds)
        _say(
            f"2/2  molsaki run {file} --runs {out / 'runs'} --jobs {jobs}\n"
            f"     It explains {TRAINING_QUESTIONS} training problems, by {engine}. One more pass records where it\n"
            f"     looks, step by step. {seeds} students learn from its text alone (dss), {seeds} also from where it\n"
            f"     looked (molsaki)."
        )
        code = stop.run(our_command("run", file, "--runs", out / "runs", "--jobs", jobs))
        if code:
            raise StageProcessError(code)
    _conclude(out, file, seeds, time.monotonic() - started)


def jobs_at_a_time(seeds: int) -> int:
    """Students this small use a core each better than all cores in turn; a dozen processes are slow to start."""
    return min(len(os.sched_getaffinity(0)), 2 * seeds, MOST_JOBS)


def make_models(*, out: Path, teacher_layers: int) -> None:
    """Make a teacher of so many layers and folders of two students in `out`, and nothing else.

    The second student has another tokenizer than the teacher: its words are made of several tokens.
    """
    quieten_libraries(quiet=True)
    with ForwardingStop() as stop:
        _make_models(out, stop, teacher_layers)
        if not (out / OF_PIECES).exists():
            _write_student(out / OF_PIECES, VOCABULARY_OF_PIECES)


def _write_student(out: Path, vocabulary: int) -> None:
    with importing():
        from stages.toy.teacher import ModelShape, word_tokenizer, write_untrained

    tokenizer = word_tokenizer(synthetic_questions(TEACHER_QUESTIONS, seed=TEACHER_SEED, split="train"), vocabulary)
    write_untrained(out, tokenizer, ModelShape(layers=2, width=64, heads=2, feed_forward=256))


def _say(line: str) -> None:
    click.echo(line, err=True)


def _make_models(out: Path, stop: StopSignal, teacher_layers: int) -> None:
    """Train the teacher and write the student's folder, unless an earlier demo with the same recipe has done so."""
    from stages.toy.teacher import ModelShape, Recipe

    shape = ModelShape(layers=teacher_layers, width=128, heads=4, feed_forward=256)
    recipe = Recipe(batch_size=32, learning_rate=4e-3, good_loss=0.03, most_steps=2000, cooling_steps=250)
    wanted = {"shape": asdict(shape), "recipe": asdict(recipe), "seed": TEACHER_SEED, "questions": TEACHER_QUESTIONS}
    mark = out / "teacher" / MADE
    made = json.loads(mark.read_text(encoding="utf-8")) if mark.exists() else {}
    if made.get("made_with") != wanted:
        with open_progress(quiet=False) as progress:
            made = {"made_with": wanted, "accuracy": _train_teacher(out, shape, recipe, progress, stop)}
        mark.write_text(json.dumps(made, indent=1), encoding="utf-8")
    _say(f"     The teacher solves {made['accuracy']:.1%} of {TEST_QUESTIONS} test problems.")


def _train_teacher(out: Path, shape: "ModelShape", recipe: "Recipe", progress: Progress, stop: StopSignal) -> float:
    with importing():
        from stages.toy.teacher import ModelShape, share_solved, train_from_scratch, word_tokenizer, write_untrained

    questions = synthetic_questions(TEACHER_QUESTIONS, seed=TEACHER_SEED, split="train")
    tokenizer = word_tokenizer(questions)
    write_untrained(out / "student", tokenizer, ModelShape(layers=2, width=64, heads=2, feed_forward=256))
    train_from_scratch(
        questions, out / "teacher", tokenizer=tokenizer, shape=shape, recipe=recipe, progress=progress, stop=stop
    )
    return share_solved(out / "teacher", synthetic_questions(TEST_QUESTIONS, seed=TEST_SEED, split="test"))


def _write_configuration(out: Path, seeds: Sequence[int], engine: str = ENGINES[0]) -> Path:
    file = out / f"{NAME}.yaml"
    values = {
        "file": file,
        "runs": out / "runs",
        "name": NAME,
        "store": json.dumps(str(out / "store")),  # quoted, whatever stands in the path
        "teacher": json.dumps(str(out / "teacher")),
        "student": json.dumps(str(out / "student")),
        "engine": engine,
        "seeds": list(seeds),
        "training_seed": TRAINING_SEED,
        "training_questions": TRAINING_QUESTIONS,
        "test_seed": TEST_SEED,
        "test_questions": TEST_QUESTIONS,
    }
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    file.write_text(template.substitute(values), encoding="utf-8")
    return file


def _conclude(out: Path, file: Path, seeds: int, seconds: float) -> None:
    """Print what the table says, where everything lies, and what to try next."""
    runs = out / "runs"
    click.echo(
        f"""
Accuracies in percent on {TEST_QUESTIONS} test problems, mean ± standard deviation over the seeds. `predict` answers at
once, `explain` writes the rationale first. The interval comes from resampling seeds and questions; with few seeds it
is wide. {duration(seconds)} in all.

What lies where
  {out}/teacher, {out}/student   the models that were made up
  {out}/store     rationales (Parquet) and attention (zarr), shared by all runs: molsaki cache ls --store {out}/store
  {runs}/{NAME}   for each of the two objectives configuration, log, students, predictions

What to try next
  molsaki demo --out {out} --seeds {max(10, 2 * seeds)}      a narrower interval; finished students stay
  molsaki run {file} --runs {runs} --set matrix=null --set name=beta-10 --set objective.beta=10
      another weight of the attention loss: only the students are trained anew
  molsaki compare {NAME} beta-10 --runs {runs}
  molsaki config init my.yaml      your own teacher, student and data

All of it on one page: {write_report([NAME], runs, out=RunFolder(out).report)}"""
    )
