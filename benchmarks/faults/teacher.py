"""The rationale stage with a teacher that is made up: a prompt enters, an answer that follows from it alone leaves.

The stage is the real `molsaki rationales`, in this process; the made-up teacher takes the place of the engine of
transformers. It is slow, so that there is a middle of the work, and notes the hash of each prompt that it answers in a
file, so that others can see how far it is and what was asked in vain.
"""

import hashlib
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from benchmarks.faults.processes import wait_until
from stages.engines.contract import Answers, Decoding, Engine, EngineSetup, Generation

ROUND = 10
"""Answers that the made-up teacher gives at a time."""
ROUND_SECONDS = 0.02
QUESTION = re.compile(r"Ann has (\d+) figs and finds (\d+)")


class MadeUpTeacher(Engine):
    """Says to a prompt what follows from it, in rounds that take a while, and notes each answered prompt in a file."""

    def __init__(self, log: Path, padding: int, jobs: int) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._padding = padding
        _wait_for_others(log.with_name("begun"), jobs)

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        """Answer in rounds, the last prompt of each first, as no order is promised."""
        for start in range(0, len(prompts), ROUND):
            places = range(start, min(start + ROUND, len(prompts)))
            time.sleep(ROUND_SECONDS)
            for place in reversed(places):
                os.write(self._log, f"{hashlib.sha256(prompts[place].encode()).hexdigest()}\n".encode())
                yield place, answer(prompts[place], self._padding)

    def close(self) -> None:
        """Nothing is held but the file, which may be written to the end."""


def _wait_for_others(begun: Path, jobs: int) -> None:
    """Go on when so many teachers have come here, whose stages have all looked at the store by then."""
    with begun.open("a") as file:
        file.write(f"{os.getpid()}\n")
    wait_until(lambda: len(set(begun.read_text().split())) >= jobs, f"the beginning of {jobs} jobs")


def answer(prompt: str, padding: int = 0) -> Generation:
    """Mostly right, and by the prompt's hash wrong, without an answer, empty or cut off; so also with the answer shown.

    `padding` are bytes of noise, which no compression makes smaller than they are.
    """
    digest = hashlib.sha256(prompt.encode()).digest()
    has, finds = map(int, QUESTION.findall(prompt)[-1])
    noise = hashlib.shake_256(prompt.encode()).hexdigest(padding)
    thought = f" Ann has {has} figs. {has} and {finds} make {has + finds}. {noise}"
    match digest[0] % 10:
        case 0:
            return Generation(text=f"{thought} The answer is {has}.", finish_reason="stop")
        case 1:
            return Generation(text=" I cannot tell.", finish_reason="stop")
        case 2 if digest[1] % 2:
            return Generation(text="", finish_reason="stop")
        case 2:
            return Generation(text=thought, finish_reason="length")
    return Generation(text=f"{thought} The answer is {has + finds}.", finish_reason="stop")


def be_stage(log: Path, padding: int, jobs: int) -> None:
    """Be `molsaki rationales`, with the made-up teacher where it looks for the engine of transformers."""
    module = ModuleType("stages.engines.kinds.transformers")

    def open_teacher(_setup: EngineSetup) -> MadeUpTeacher:
        return MadeUpTeacher(log, padding, jobs)

    module.ENGINE = open_teacher  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    sys.argv = ["molsaki", "rationales", "run.yaml", "--quiet"]
    from pipeline.cli.main import main as molsaki

    molsaki()
