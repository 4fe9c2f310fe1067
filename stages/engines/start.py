"""Starting an engine, and starting it again when it dies: memory limits and drivers kill vLLM's process now and then.

In: an engine's name and set-up. Out: an engine; where it may be started again, one that asks the new process only what
the old one had not answered. What fails again and again ends as before, with an `EngineError`.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from importlib import import_module

from data.errors import ConfigError, EngineError, first_line
from stages.engines import kinds
from stages.engines.contract import Answers, Decoding, Engine, EngineSetup
from stages.runtime.imports import importing
from stages.runtime.packages import needed


class RestartingEngine(Engine):
    """Puts itself in front of the engine that `start` makes; the number of restarts counts for all its streams."""

    def __init__(self, start: Callable[[], Engine], setup: EngineSetup) -> None:
        self._start = start
        self._setup = setup
        self._restarts = 0
        self._engine = start()

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        """Answer every prompt, by as many engines as it takes."""
        unanswered = list(range(len(prompts)))
        while unanswered:
            left = set(unanswered)
            try:
                with closing(self._engine.stream([prompts[place] for place in unanswered], decoding)) as answers:
                    for number, generation in answers:
                        left.discard(unanswered[number])
                        yield unanswered[number], generation
            except EngineError as error:
                self._restart(error, len(left))
            unanswered = [place for place in unanswered if place in left]

    @property
    def running(self) -> Engine:
        """The engine that runs now."""
        return self._engine

    def close(self) -> None:
        """Close the engine that runs now."""
        self._engine.close()

    def _restart(self, error: EngineError, unanswered: int) -> None:
        """Start anew, unless it was a signal that ended the engine or it has died too often."""
        if self._setup.stop is not None:
            self._setup.stop.check("what was answered before")
        self._engine.close()
        while self._restarts < self._setup.restarts:
            self._restarts += 1
            self._setup.note(
                f"the engine ended ({first_line(error)}); starting it again, {self._restarts} of "
                f"{self._setup.restarts} times, for {unanswered:,} prompts"
            )
            try:
                self._engine = self._start()
                return
            except (EngineError, ConfigError) as again:  # it has started with this configuration before
                error = EngineError(str(again))
        raise EngineError(
            f"{error}; it was started again {self._restarts} times, as rationales.restarts allows"
        ) from error


def open_engine(name: str, setup: EngineSetup, *, setting: str = "rationales.engine") -> Engine:
    """Start an engine; `ConfigError` for a model or argument that it refuses, `EngineError` if it does not start.

    `setting` is what names it.
    """
    with needed(name, setting), importing():
        kind = import_module(f"{kinds.__name__}.{name.replace('-', '_')}")
    start: Callable[[], Engine] = partial(kind.ENGINE, setup)
    return RestartingEngine(start, setup) if setup.restarts and getattr(kind, "RESTARTS", False) else start()
