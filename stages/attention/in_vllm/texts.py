"""What a worker has to know of one text, as bytes that travel with its request: which tokens form steps and words.

In: a located text. Out: a mapping of plain values, and from it a located text again, without characters, which nobody
needs there.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.attention.tokens import Located

ASKED = "molsaki_attention"
"""Name of the mapping in a request's `extra_args`."""


def asked_of(key: str, located: Located, *, compare: bool = False) -> dict[str, Any]:
    """What is asked of the text under `key`; with `compare` workers also say how far it is from the plain formula."""
    lengths = np.array([len(word) for word in located.tokens_of_word], dtype="<i4")
    tokens = np.concatenate([np.empty(0, np.int64), *located.tokens_of_word]).astype("<i4")
    return {
        "key": key,
        "steps": located.steps,
        "step_of_token": located.step_of_token.astype("<i4").tobytes(),
        "words": lengths.tobytes(),
        "tokens_of_words": tokens.tobytes(),
        "special": np.packbits(located.is_special()).tobytes(),
        "compare": compare,
    }


def located_of(asked: Mapping[str, Any]) -> Located:
    """The text again; its ids are zeros, and its spans say no more than which tokens are special."""
    step_of_token = np.frombuffer(asked["step_of_token"], dtype="<i4").astype(np.int64)
    lengths = np.frombuffer(asked["words"], dtype="<i4")
    tokens = np.frombuffer(asked["tokens_of_words"], dtype="<i4").astype(np.int64)
    special = np.unpackbits(np.frombuffer(asked["special"], dtype=np.uint8), count=len(step_of_token)).astype(bool)
    ends = np.stack([np.zeros(len(special), np.int64), np.where(special, 0, 1)], axis=1)
    return Located(
        ids=np.zeros(len(step_of_token), np.int64),
        step_of_token=step_of_token,
        tokens_of_word=tuple(np.split(tokens, np.cumsum(lengths)[:-1])) if len(lengths) else (),
        steps=int(asked["steps"]),
        text="",
        spans=ends,
    )
