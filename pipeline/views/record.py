"""One stored record as something to look at: its key enters, its texts, steps, words and the matrix between them leave.

Shared by the heat map of `molsaki plot record` and the one in the terminal, so that both show the same numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cache.reader import AttentionStore
from data.errors import ConfigError
from data.records import Span
from stages.figures.attention_shares import (
    GROUPS,
    Floats,
    Group,
    LayerChoice,
    mean_of_layers,
    one_layer,
    record_shares,
    step_numbers,
    teachers_mixture,
)


@dataclass(frozen=True, kw_only=True)
class StepView:
    """One step: its number (−1 is the question's last, 1 the rationale's first), its text, and where it looks.

    `shares` of its attention by who receives it are None where the store does not tell, and where it has no token.
    """

    step: int
    span: Span
    text: str
    tokens: int
    shares: Mapping[Group, float] | None


@dataclass(frozen=True, kw_only=True)
class WordView:
    """One critical word."""

    span: Span
    text: str


@dataclass(frozen=True, kw_only=True)
class RecordView:
    """One record; `attention[s][k]` is what word k receives from step s (Eq. 2), layers put together as `layers` says.

    `text` is question, line break, rationale, and spans count characters in it.
    """

    space: str
    key: str
    layers: str
    text: str
    rationale_start: int
    steps: tuple[StepView, ...]
    words: tuple[WordView, ...]
    attention: tuple[tuple[float, ...], ...]

    def is_later(self, step: int, word: int) -> bool:
        """Whether a word (by its place in `words`) begins after a step has ended, so that it cannot be looked at."""
        return self.words[word].span[0] >= self.steps[step].span[1]


def check_layer(layer: int | None, store: AttentionStore) -> None:
    """Raise `ConfigError` for a layer that is not there."""
    if layer is not None and not 1 <= layer <= store.layers:
        raise ConfigError(f"--layer {layer}: expected 1 to {store.layers}, the layers of {store.space.path.name}")


def layer_choice(layer: int | None, *, mixture: bool, tau: float) -> LayerChoice:
    """How the layers of a record are put together: one, the teacher's mixture, or by default the mean of all."""
    if layer is not None:
        return one_layer(layer)
    return teachers_mixture(tau) if mixture else mean_of_layers()


def view_record(store: AttentionStore, key: str, layers: LayerChoice) -> RecordView:
    """Read one record, with its layers put together."""
    marked, attention_LSK = store.marked(key), store[key]
    weights_L = layers.weigh(attention_LSK)
    (totals,) = store.read_totals([key])
    shares = None if totals is None else record_shares(totals, weights_L)
    steps = zip(step_numbers(marked).tolist(), marked.step_spans, store.step_tokens(key).tolist(), strict=True)
    return RecordView(
        space=store.space.path.name,
        key=key,
        layers=layers.label,
        text=marked.text,
        rationale_start=marked.rationale_start,
        steps=tuple(
            StepView(
                step=number, span=span, text=marked.text[slice(*span)], tokens=tokens, shares=_named(shares, place)
            )
            for place, (number, span, tokens) in enumerate(steps)
        ),
        words=tuple(WordView(span=span, text=marked.text[slice(*span)]) for span in marked.critical_spans),
        attention=tuple(tuple(row) for row in layers.mixed(attention_LSK).tolist()),
    )


def _named(shares_SG: Floats | None, step: int) -> Mapping[Group, float] | None:
    if shares_SG is None or np.isnan(shares_SG[step]).any():
        return None
    return dict(zip(GROUPS, shares_SG[step].tolist(), strict=True))
