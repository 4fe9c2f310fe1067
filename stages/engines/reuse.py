"""One engine for one student after the other: starting vLLM takes longer than a small student's answers.

In: students' checkpoint folders, one at a time. Out: an engine that answers as the student does. The engine that runs
gets the next student's weights where that student differs in nothing else, and has to prove that it took them: the
log-probabilities that it gives a fixed text are held against those that transformers computes from the checkpoint. With
vLLM 0.32 on a CPU the head keeps old weights where it shares them with the embeddings, without a word; other versions
and devices may have other such faults. Where the proof fails the engine is started anew, as it is where no other
weights can be given.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from data.errors import EngineError
from stages.engines.contract import Engine, EngineSetup
from stages.engines.start import open_engine

ALIKE = ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""Files that an engine has read at its start and does not read again, beside the configuration."""
NAMES = frozenset({"_name_or_path", "transformers_version"})
"""What a configuration says that changes nothing."""
PROVEN_ON = 64
"""Tokens of the text that a proof is made on."""
NOISE = 1e-4
"""Difference of log-probabilities, in nats, that is always put down to rounding."""
TIMES_NOISE = 2.0
"""A student is proven where it is so much further from transformers at most than the first one was, which was loaded
as engines always load."""
TELLING = 10.0
"""Two students whose log-probabilities differ by less than so many times that cannot be told apart by them."""


class ReusedEngines:
    """An engine that stays between students, as long as it can; a context manager that closes it."""

    def __init__(self, note: Callable[[str], object]) -> None:
        self._note = note
        self._engine: Engine | None = None
        self._name: str | None = None
        self._setup: EngineSetup | None = None
        self._fingerprint: Any = None
        self._said: list[float] = []
        self._noise: float | None = None
        self._in_vain: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def answering(self, name: str, setup: EngineSetup) -> Iterator[Engine]:
        """An engine that answers as the student in the folder `setup.model` does; it stays, unless something fails."""
        fingerprint = (name, replace(setup, model=""), _read_once(Path(setup.model)))
        engine = self._engine
        try:
            if engine is None or fingerprint != self._fingerprint or not self._takes(engine, setup):
                self.close()
                engine = self._engine = open_engine(name, setup)
                self._fingerprint, self._setup = fingerprint, setup
            yield engine
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the engine that is there."""
        if self._engine is not None:
            self._engine.close()
        self._engine, self._said, self._noise = None, [], None

    def _takes(self, engine: Engine, setup: EngineSetup) -> bool:
        """Whether the engine proves that it is the student now; where one could not, no other of its kind is tried."""
        if not engine.reloads or self._fingerprint in self._in_vain:
            return False
        try:
            why = self._why_not(engine, setup)
        except EngineError as error:
            why = str(error)
        if why is not None:
            self._note(f"an engine for each student: {why}")
            self._in_vain.append(self._fingerprint)
        return why is None

    def _why_not(self, engine: Engine, setup: EngineSetup) -> str | None:
        """Give the engine a student's weights, and say why it is not proven to have them; None where it is."""
        assert self._setup is not None, "there is no engine without one"
        ids = _text(Path(setup.model))
        if self._noise is None:
            self._said = log_probabilities(self._setup.model, ids)
            self._noise = max(NOISE, _distance(engine.log_probabilities(ids), self._said))
        expected = log_probabilities(setup.model, ids)
        moved = _distance(expected, self._said)
        engine.reload(setup.model)
        away = _distance(engine.log_probabilities(ids), expected)
        self._setup, self._said = setup, expected
        if moved < TELLING * self._noise:
            return (
                f"two of them are too much alike to be told apart ({moved:.2g} nats, of which {self._noise:.2g} round)"
            )
        if away > TIMES_NOISE * self._noise:
            return f"one that was given new weights is {away:.2g} nats away from them, of which {self._noise:.2g} round"
        return None


def log_probabilities(checkpoint: str, ids: Sequence[int]) -> list[float]:
    """What transformers gives each token but the first, in nats, in float32 on the CPU."""
    import torch

    from stages.models.load import load_causal_lm

    model = load_causal_lm(checkpoint, None, "float32").eval()
    with torch.inference_mode():
        logits_TV = model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    log_probabilities_TV = logits_TV.float().log_softmax(dim=-1)
    found: list[float] = log_probabilities_TV[:-1].gather(1, torch.tensor(ids)[1:, None])[:, 0].tolist()
    return found


def _text(checkpoint: Path) -> list[int]:
    """Token ids spread over the vocabulary, as many as the student surely knows positions for."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    vocabulary = int(config.get("vocab_size") or config["text_config"]["vocab_size"])
    return [(number * vocabulary // PROVEN_ON + 7 * number) % vocabulary for number in range(1, PROVEN_ON)]


def _read_once(checkpoint: Path) -> Any:
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    others = {name: (checkpoint / name).read_bytes() for name in ALIKE if (checkpoint / name).is_file()}
    return {name: value for name, value in config.items() if name not in NAMES}, others


def _distance(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Root of the mean square of the differences."""
    return float((sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True)) / len(theirs)) ** 0.5)
