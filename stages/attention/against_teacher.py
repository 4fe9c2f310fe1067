"""Comparing stored attention with the teacher: a space and its teacher enter, how far they are apart leaves.

Hashes show that the bytes are those that were written. This shows that they are what the teacher gives: some records go
through it again, with the same code that wrote them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args

import numpy as np

from cache.fingerprints import Spec, describe_differences, differences
from cache.reader import AttentionStore
from cache.rounding import kept_bits
from data.errors import DamagedCacheError, MismatchError, MissingRecordsError
from stages.attention.batches import TokenBudget
from stages.attention.spec import attention_spec
from stages.attention.stepwise import attention_of
from stages.attention.tokens import Located, locate
from stages.attention.write import TOLERANCE
from stages.models.identity import ModelIdentity, identify_model
from stages.models.load import load_teacher
from stages.models.tokenizer import begin_token, load_tokenizer
from stages.runtime.progress import Progress
from stages.settings import AttentionEngine, AttentionSettings, Device, Dtype, TeacherSettings

DTYPES: tuple[Dtype, ...] = get_args(Dtype)
PIECE = 64
BATCH_TOKENS = 4096
"""Tokens of a batch: a few records need no large ones."""
COMPARED = ("schema", "rules", "model", "tokenizer", "heads")
"""Fields of the spec that the given teacher and this version decide; the others, and whether a text has a begin token
in front, are taken from the space."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far stored records are from what the teacher gives now.

    A record's difference is ‖stored − computed‖ / ‖computed‖ in the layer where it is largest; `largest` and `mean` are
    over the records, `key` is the record of the largest. `expected` is what rounding in `dtype` and on disk explains.
    """

    records: int
    largest: float
    mean: float
    key: str
    dtype: str
    expected: float

    def check(self) -> None:
        """Raise `DamagedCacheError` where the difference is more than rounding explains."""
        if not self.largest <= self.expected:
            raise DamagedCacheError(
                f"record {self.key}: stored attention is {self.largest:.2%} from what the teacher gives, more than the "
                f"{self.expected:.2%} that {self.dtype} explains; the space was not made by this teacher and this code"
            )


def drift_from_teacher(
    store: AttentionStore,
    teacher: str,
    count: int,
    *,
    device: Device,
    progress: Progress,
    engine: AttentionEngine | None = None,
) -> Drift:
    """Run `count` stored records through `teacher` (a folder or hub id) again and compare.

    The teacher is run by `engine`, or else by the one that the records were made by. The records lie evenly over the
    parts, the same ones each time. Raises `MismatchError` where the teacher, its tokenizer or the rules of this version
    are not those of the space, and `DamagedCacheError` for a record whose steps have other numbers of tokens than were
    stored.
    """
    if not len(store):
        raise MissingRecordsError(f"{store.space.path}: no record to compare with the teacher")
    spec = store.space.spec
    settings, identity = _teacher_of(store, teacher, device)
    attention = _attention_of(spec, engine)
    _require_same(spec, attention_spec(identity, settings, AttentionSettings()), store)
    keys = evenly(list(store), count)
    progress.start("against the teacher", len(keys))
    tokenizer = load_tokenizer(identity.path, identity.hub_revision)
    begin = begin_token(tokenizer) if "begin" in spec else None
    apart: list[float] = []
    with _computing(settings, attention, identity, longest=int(str(spec.get("max_length")))) as compute:
        for piece in (keys[start : start + PIECE] for start in range(0, len(keys), PIECE)):
            located = [locate(tokenizer, store.marked(key), begin=begin) for key in piece]
            for key, one in zip(piece, located, strict=True):
                if not np.array_equal(one.step_tokens(), store.step_tokens(key)):
                    raise DamagedCacheError(f"record {key}: its steps have other numbers of tokens than were stored")
            for stored, computed in zip(store.read(piece), compute(piece, located), strict=True):
                apart.append(_apart(stored, computed))
                progress.advance()
    worst = int(np.argmax(apart))
    return Drift(
        records=len(keys),
        largest=apart[worst],
        mean=float(np.mean(apart)),
        key=keys[worst],
        dtype=settings.dtype,
        expected=expected_drift(settings.dtype, spec),
    )


@contextmanager
def _computing(
    teacher: TeacherSettings, attention: AttentionSettings, identity: ModelIdentity, *, longest: int
) -> Iterator[Callable[[Sequence[str], Sequence[Located]], list[np.ndarray]]]:
    """What makes attention of texts by their keys, (L, S, K) each, while inside."""
    if attention.engine == "transformers":
        model, budget = load_teacher(identity.path, identity.hub_revision, teacher), TokenBudget(BATCH_TOKENS)
        yield lambda _, located: attention_of(model, located, budget)
        return
    from stages.attention.in_vllm.engine import VllmAttention
    from stages.attention.in_vllm.write import longest_of, started

    with started(teacher, attention, identity, longest=longest_of(identity, teacher, longest)) as running:
        watched = VllmAttention(running)
        yield lambda keys, located: [one.words for one in watched.of(keys, located)]


def _attention_of(spec: Spec, engine: AttentionEngine | None) -> AttentionSettings:
    """The settings of the engine that ran the teacher, or is to run it now."""
    made_by = spec.get("engine", {})
    arguments = made_by.get("vllm") if isinstance(made_by, dict) else None
    if (engine or ("transformers" if arguments is None else "vllm")) == "transformers":
        return AttentionSettings()
    return AttentionSettings(engine="vllm", engine_arguments=dict(arguments) if isinstance(arguments, dict) else {})


def expected_drift(dtype: Dtype, spec: Spec) -> float:
    """What rounding explains: the teacher's number format, and half a unit of the last bit kept on disk."""
    return TOLERANCE[dtype] + 2.0 ** -(kept_bits(spec) + 1)


def evenly(keys: Sequence[str], count: int) -> list[str]:
    """Return `count` keys from first to last with equal gaps, or all where there are fewer."""
    places = np.linspace(0, len(keys) - 1, min(count, len(keys))).round().astype(int)
    return [keys[place] for place in dict.fromkeys(places.tolist())]


def _apart(stored: np.ndarray, computed: np.ndarray) -> float:
    """Largest relative difference of a layer; a layer that gives nothing has to be stored so."""
    difference_L = np.linalg.norm((stored.astype(np.float32) - computed).reshape(len(computed), -1), axis=1)
    size_L = np.linalg.norm(computed.reshape(len(computed), -1), axis=1)
    return float(np.max(difference_L / np.maximum(size_L, np.finfo(np.float16).smallest_normal)))


def _teacher_of(store: AttentionStore, teacher: str, device: Device) -> tuple[TeacherSettings, ModelIdentity]:
    """The settings that the space was made with, and who the given teacher is."""
    spec = store.space.spec
    dtype = next((known for known in DTYPES if known == spec.get("dtype")), None)
    quantization = spec.get("quantization", {})
    if dtype is None or not isinstance(quantization, dict):
        made = {"dtype": spec.get("dtype"), "quantization": quantization}
        found = differences({"dtype": " or ".join(DTYPES), "quantization": {}}, made)
        raise MismatchError(
            f"{store.space.path}: made in a number format that this version cannot load a teacher in\n"
            f"{describe_differences(found)}"
        )
    _, at, revision = str(spec.get("model")).rpartition("@")
    identity = identify_model(teacher, revision if at else None)
    settings = TeacherSettings(
        model=teacher, revision=revision if at else None, dtype=dtype, device=device, quantization=quantization
    )
    return settings, identity


def _require_same(theirs: Spec, ours: Spec, store: AttentionStore) -> None:
    compared = [*COMPARED, *({"begin"} & theirs.keys())]
    fields = differences(
        {name: ours[name] for name in compared}, {name: theirs[name] for name in compared if name in theirs}
    )
    if fields:
        raise MismatchError(
            f"{store.space.path}: was made with another teacher, or by another version of this program\n"
            f"{describe_differences(fields)}"
        )
