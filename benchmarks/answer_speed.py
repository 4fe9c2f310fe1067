"""What reading and finishing 10,000 texts costs, in several checkouts by turns.

In: checkouts, and the folder with the published sets (MOLSAKI_DATA). Out: seconds of processors for `parse_answer` and
`finish_rationale` over PaLM's rationales on SVAMP and CommonsenseQA and GSM8K's own solutions, 10,000 texts, median of
the rounds, and the ratios to the first checkout.

    python -P benchmarks/answer_speed.py BEFORE . --data DATA
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

TEXTS = 10_000


def main() -> None:
    """Read the options and let each checkout do its part, round after round."""
    parser = argparse.ArgumentParser(description="Cost of reading answers, checkout by checkout.")
    parser.add_argument("checkouts", nargs="+", type=Path)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("MOLSAKI_DATA"), required="MOLSAKI_DATA" not in os.environ
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measured(Path(options.data))))
        return
    found: dict[tuple[Path, str], list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for checkout in options.checkouts:
            command = [sys.executable, "-P", __file__, "--here", "--data", str(options.data), "."]
            environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)  # noqa: S603  our own
            for name, seconds in json.loads(done.stdout).items():
                found[checkout, name].append(seconds)
    for name in ("parse", "finish"):
        first = statistics.median(found[options.checkouts[0], name])
        for checkout in options.checkouts:
            seconds = statistics.median(found[checkout, name])
            print(f"{name:<7} {checkout!s:<30} {seconds:6.2f} s  {seconds / first:.2f}")


def measured(data: Path) -> dict[str, float]:
    """Seconds of processors for all texts, in this checkout."""
    try:
        from data.answers.parse import parse_answer
    except ImportError:  # a checkout in which it was a single file
        from data.answers import parse_answer
    from data.prompts import finish_rationale

    texts = pairs(data)
    seconds = {}
    for name, work in (
        ("parse", lambda question, text: parse_answer(text, question)),
        ("finish", lambda question, text: finish_rationale(text, question, question.answer)),
    ):
        for question, text in texts[:200]:
            work(question, text)
        started = time.process_time()
        for question, text in texts:
            work(question, text)
        seconds[name] = time.process_time() - started
    return seconds


def pairs(data: Path) -> list[tuple[Any, str]]:
    """Questions with a text about each: as many as there are, and again up to `TEXTS`."""
    from data.readers import read_questions
    from data.settings import DataSource

    def questions(name: str, *files: str) -> dict[str, Any]:
        sources = [DataSource(name=name, path=str(data / file)) for file in files]  # type: ignore[arg-type]
        return {question.id: question for source in sources for question in read_questions(source)}

    found = [
        (question, f"{question.reference}\n#### {question.answer}")
        for question in questions("gsm8k", "gsm8k/test.jsonl").values()
    ]
    for file, key, asked in (
        ("svamp", "ID", questions("svamp", "svamp/chilled_train.jsonl", "svamp/chilled_test.jsonl")),
        ("cqa", "id", questions("commonsenseqa", "commonsenseqa/dev_rand_split.jsonl")),
    ):
        lines = (data / "palm_rationales" / f"{file}_palm_joined.jsonl").read_text(encoding="utf-8").splitlines()
        found += [
            (asked[row[key]], f"{row['palm_rationale']} So the answer is {asked[row[key]].answer}.")
            for row in map(json.loads, lines)
            if row[key] in asked and row["palm_rationale"]
        ]
    return (found * (TEXTS // len(found) + 1))[:TEXTS]


if __name__ == "__main__":
    main()
