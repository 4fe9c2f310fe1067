"""Estimate against truth: what `molsaki status` says after `run --limit N`, and what the rest of the run then takes.

    python -P benchmarks/costs.py --rounds 3 --models demo

In: a teacher and a student as `molsaki demo` makes them (made here where `--models` holds none). Out: for each stage
and round the estimate, what provenance recorded, and their ratio, for bytes, peak memory, seconds by the clock and of
processors; last the median ratios. Each round begins with an empty store. On a machine that others use as well, seconds
of processors are the ones to compare, but for vLLM, whose own process is not among them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from data.sets.synthetic import synthetic_questions
from stages.runtime.progress import SilentProgress, StopSignal
from stages.toy.teacher import ModelShape, Recipe, train_from_scratch, word_tokenizer, write_untrained

FIGURES = {"bytes": "bytes_grown", "peak_bytes": "peak_bytes", "seconds": "seconds", "cpu_seconds": "cpu_seconds"}
CONFIGURATION = """\
name: costs
store: {place}/store
data:
  train: [{{name: synthetic, split: train, seed: 5, limit: {questions}}}]
  test: [{{name: synthetic, split: test, seed: 6, limit: {questions}}}]
teacher: {{model: {models}/teacher, dtype: float32}}
rationales:
  {{engine: {engine}, shots: 0, max_tokens: 96, second_phase: false, engine_arguments: {{max_model_len: 256}}}}
student: {{model: {models}/student, initialise: random}}
objective: {{beta: 10, tau_student: 50}}
training: {{seeds: [0], epochs: {epochs}, batch_size: 16, learning_rate: 2e-3}}
evaluation: {{max_new_tokens: 64, batch_size: 64}}
"""


def main() -> None:
    """Read the options, make the models if need be, and measure."""
    parser = argparse.ArgumentParser(description="Estimate and truth of what a run takes.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--limit", type=int, default=250, help="questions that are done before it is asked")
    parser.add_argument("--engine", choices=["vllm", "transformers"], default="transformers")
    parser.add_argument("--models", type=Path, help="folder with teacher/ and student/, such as the demo's")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        models = options.models or Path(place)
        if not (models / "teacher" / "model.safetensors").exists():
            make_models(models)
        ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
        for number in range(options.rounds):
            measure(Path(place) / f"round-{number}", models.resolve(), options, ratios)
    print(f"\nmedian ratio of estimate to truth, {options.rounds} rounds")
    for stage in dict.fromkeys(stage for stage, _ in ratios):
        row = "  ".join(f"{figure} {statistics.median(ratios[stage, figure]):.2f}" for figure in FIGURES)
        print(f"{stage:<11} {row}")


def make_models(folder: Path) -> None:
    """The models of `molsaki demo`."""
    questions = synthetic_questions(30_000, seed=1, split="train")
    tokenizer = word_tokenizer(questions)
    write_untrained(folder / "student", tokenizer, ModelShape(layers=2, width=64, heads=2, feed_forward=256))
    with StopSignal() as stop:
        train_from_scratch(
            questions,
            folder / "teacher",
            tokenizer=tokenizer,
            shape=ModelShape(layers=2, width=128, heads=4, feed_forward=256),
            recipe=Recipe(batch_size=32, learning_rate=4e-3, good_loss=0.03, most_steps=2000, cooling_steps=250),
            progress=SilentProgress(),
            stop=stop,
        )


def measure(place: Path, models: Path, options: argparse.Namespace, ratios: dict[tuple[str, str], list[float]]) -> None:
    """One round: some questions, the estimate for the rest, the rest, and how they compare."""
    place.mkdir()
    file = place / "costs.yaml"
    values = {name: getattr(options, name) for name in ("questions", "epochs", "engine")}
    file.write_text(CONFIGURATION.format(place=place, models=models, **values), encoding="utf-8")
    runs = ("--runs", str(place / "runs"), "--quiet")
    molsaki("run", str(file), *runs, "--limit", str(options.limit))
    printed = molsaki("status", str(file), *runs[:-1], "--json")
    estimates = {plan["name"]: plan["cost"] for plan in json.loads(printed)}
    molsaki("run", str(file), *runs)
    provenance = json.loads((place / "runs" / "costs" / "provenance.json").read_text(encoding="utf-8"))
    for record in provenance["stages"]:
        compare(record, estimates[record["stage"]], ratios)


def compare(record: dict[str, Any], cost: dict[str, Any], ratios: dict[tuple[str, str], list[float]]) -> None:
    """Print estimate, truth and ratio of one stage."""
    cells = []
    for figure, recorded in FIGURES.items():
        estimate, truth = cost[figure]["value"], record[recorded]
        ratios[record["stage"], figure].append(estimate / truth)
        cells.append(f"{figure} {estimate:,.6g} / {truth:,.6g} = {estimate / truth:.2f}")
    print(f"{record['stage']:<11} {'   '.join(cells)}", flush=True)


def molsaki(*arguments: str) -> str:
    """Run a command in a process of its own and return what it prints."""
    command = [sys.executable, "-P", "-m", "pipeline", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603  our own command


if __name__ == "__main__":
    main()
