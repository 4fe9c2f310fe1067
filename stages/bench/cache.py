"""What a store saves against one file a record: time to write, bytes and files, time to open and to read.

In: how many records of how many layers, kept in four ways. Out: seconds of each round by round, bytes and files,
memory. What opening a large store costs stands in `stages.bench.index`. The ways:

    store               ours: `cache.writer` and `cache.reader`, each read decodes what it is asked for
    memory-map          ours as training reads it: the layers mixed once (Eq. 4), then `cache.targets`
    torch-save          one `torch.save` file of (L, S, K + 3) float32 a record
    torch-save-float16  the same in float16

Records are those of the attention stage: attention to single words, and what steps look at beside them, the three sums
of `cache.step_totals`, which the files hold as three more columns of one tensor (a second one would make them larger).
Nothing else is in the files; the store also has texts, spans, keys and checksums, and is on disk when writing ends. A
read gives the attention to single words, as a tensor that shares no memory with another record; from files with all
layers, which training has yet to mix.

**Attention that resembles the real one.** Texts are made-up problems with rationales (`data.sets.synthetic`), marked as
by default. `PATTERNS` records of each shape (S, K) are run through a causal language model, by default a random Llama
whose weights are large enough for attention to be as uneven as in trained models, and with a begin token in front of
each text, which steps look at too. Every other record takes the attention of one of those, each value times exp(0.1 z),
z normal: zeros stay (words that come after a step, sinks that a model does not have), exponents hardly change, and
mantissas are all new, so that nothing compresses because it is there twice.

Shapes: L layers, S steps, K critical words.
"""

import itertools
import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cache.fingerprints import Spec
from cache.keys import record_key
from cache.layout import MAX_RECORDS
from cache.reader import AttentionStore
from cache.spaces import Space
from cache.step_totals import RECEIVERS
from cache.targets import CombinedStore, combined
from cache.writer import AttentionBlock, AttentionWriter
from data.errors import MismatchError
from data.marking import mark
from data.records import Marked, Question
from data.sets.synthetic import synthetic_questions
from stages.attention.batches import TokenBudget
from stages.attention.stepwise import stepwise_of
from stages.attention.tokens import locate
from stages.attention.write import attention_block
from stages.bench.index import Opening
from stages.bench.measure import Rounds, Size, drop, nothing, rounds_of, size_of, take_turns, warm
from stages.mixture import mixed_targets
from stages.models.load import load_causal_lm
from stages.models.tokenizer import load_tokenizer
from stages.runtime.memory import peak_resident_bytes, resident_bytes
from stages.toy.random_llama import SEED, Shape, random_llama
from stages.toy.teacher import word_tokenizer

Method: TypeAlias = Literal["store", "memory-map", "torch-save", "torch-save-float16"]
METHODS: tuple[Method, ...] = get_args(Method)
REFERENCE: Method = "torch-save"
MOST_ROUNDS: Mapping[Method, int] = {"store": 1}
"""Rounds of epochs that a method takes part in, at most: decoding each record alone is slow and varies little."""
DTYPES: Mapping[Method, torch.dtype] = {"torch-save": torch.float32, "torch-save-float16": torch.float16}
Read: TypeAlias = Callable[[str], torch.Tensor]
PATTERNS = 128
NOISE = 0.1
WIDTH, HEADS = 64, 4
BATCH_TOKENS = 8192
SUFFIX = ".pt"
TAU = 0.1
RULE: Spec = {"layers": "Eq. 4", "tau": TAU, "for": "bench cache"}
COMPARED = 100
"""Records whose readings by all methods are compared before any of them is timed."""
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class CacheJob:
    """Everything that one measuring process needs to know; all of them work in `folder`."""

    folder: Path
    records: int
    layers: int
    repeats: int
    reads: int
    teacher: str | None
    """Folder or hub id of the model whose attention is stored; None for a random one of `layers` layers."""


@dataclass(frozen=True, kw_only=True)
class StoreSetting:
    """What was stored and with what, as it turned out.

    In all records there are so many `values` of attention to single words, and `sums` of what steps look at beside.
    """

    records: int
    values: int
    sums: int
    layers: int
    teacher: str
    seed: int
    torch: str
    numpy: str
    zarr: str


@dataclass(frozen=True, kw_only=True)
class Written:
    """Seconds of each round of writing, and what lies on disk after it."""

    rounds: dict[Method, Rounds]
    sizes: dict[Method, Size]
    setting: StoreSetting


@dataclass(frozen=True, kw_only=True)
class ColdEpoch(Opening):
    """A fresh process: seconds until the first record can be asked for, those of reading each once, and memory."""

    epoch_seconds: float


@dataclass(frozen=True, kw_only=True)
class ReadTimes:
    """Seconds of each round: `reads` records at random, and all records once in random order; files in memory."""

    reads: dict[Method, Rounds]
    epochs: dict[Method, Rounds]


def made_up_blocks(job: CacheJob) -> list[AttentionBlock]:
    """Records with attention as the module describes; equal jobs give equal ones."""
    questions = synthetic_questions(job.records, seed=SEED, split="train")
    records = [mark(question.text, question.reference or "") for question in questions]
    of_shape: dict[tuple[int, int], list[int]] = {}
    for number, marked in enumerate(records):
        of_shape.setdefault((len(marked.step_spans), len(marked.critical_spans)), []).append(number)
    model, tokenizer = _teacher(job, questions)
    source = np.random.default_rng(SEED)
    blocks: dict[int, AttentionBlock] = {}
    for numbers in of_shape.values():
        patterns = _computed([records[number] for number in numbers[:PATTERNS]], model, tokenizer)
        blocks |= zip(numbers, patterns, strict=False)
        for number in numbers[len(patterns) :]:
            blocks[number] = _varied(patterns[source.integers(len(patterns))], records[number], source)
    return [blocks[number] for number in range(len(records))]


def _teacher(job: CacheJob, questions: Sequence[Question]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if job.teacher is not None:
        return load_causal_lm(job.teacher, None, "float32").eval(), load_tokenizer(job.teacher, None)
    tokenizer = word_tokenizer(questions)
    begin = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.eos_token_id)]
    )
    shape = Shape(layers=job.layers, width=WIDTH, heads=HEADS, kv_heads=HEADS)
    model = random_llama(shape, positions=512, vocabulary=len(tokenizer), device=CPU, dtype="float32")
    return model.eval(), tokenizer


def _computed(
    records: Sequence[Marked], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> list[AttentionBlock]:
    located = [locate(tokenizer, marked) for marked in records]
    found = zip(records, located, stepwise_of(model, located, TokenBudget(BATCH_TOKENS)), strict=True)
    return [attention_block(record_key(marked), marked, where, block) for marked, where, block in found]


def _varied(pattern: AttentionBlock, marked: Marked, source: np.random.Generator) -> AttentionBlock:
    def changed(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        factors: npt.NDArray[np.float32] = np.exp(NOISE * source.standard_normal(values.shape, dtype=np.float32))
        return values * factors

    attention, receivers = changed(pattern.attention), changed(_receivers(pattern))
    return replace(pattern, key=record_key(marked), marked=marked, attention=attention, receivers=receivers)


def measure_writing(job: CacheJob, *, after_each: Callable[[], object] = nothing) -> Written:
    """Write all records by each method, in turns, then the memory map; what the last round wrote stays."""
    blocks = made_up_blocks(job)
    after_each()
    turns = partial(
        take_turns,
        rounds_of=dict.fromkeys(METHODS, range(job.repeats)),
        device=CPU,
        before_each=lambda method: shutil.rmtree(_place(method, job), ignore_errors=True),
        after_each=after_each,
    )
    files = {method: partial(_write_files, _place(method, job), blocks, dtype) for method, dtype in DTYPES.items()}
    rounds = turns({"store": lambda: _write_store(job, blocks), **files})
    store = AttentionStore.open(_space(job))
    rounds |= turns({"memory-map": lambda: _mixed(store)})
    os.sync()  # pages that are not on disk yet cannot be given up
    return Written(
        rounds={method: rounds[method] for method in METHODS},
        sizes={method: size_of(_place(method, job)) for method in METHODS},
        setting=_setting(job, blocks),
    )


def _place(method: Method, job: CacheJob) -> Path:
    """Where a method keeps everything."""
    return job.folder / {"store": "store/attention", "memory-map": "store/targets"}.get(method, method)


def _space(job: CacheJob) -> Path:
    (path,) = _place("store", job).iterdir()
    return path


def _write_store(job: CacheJob, blocks: Sequence[AttentionBlock]) -> None:
    space = Space.open_or_create(job.folder / "store", "attention", "bench", {"schema": 1, "rounding": None})
    writer = AttentionWriter(space)
    for first in range(0, len(blocks), MAX_RECORDS):
        writer.append(blocks[first : first + MAX_RECORDS])


def _write_files(folder: Path, blocks: Sequence[AttentionBlock], dtype: torch.dtype) -> None:
    folder.mkdir()
    for block in blocks:
        both_LSK = np.concatenate([block.attention, _receivers(block)], axis=2)
        torch.save(torch.from_numpy(both_LSK).to(dtype), folder / f"{block.key}{SUFFIX}")


def _receivers(block: AttentionBlock) -> npt.NDArray[np.floating[Any]]:
    assert block.receivers is not None, "computed as the attention stage does"
    return block.receivers


def _mixed(store: AttentionStore) -> CombinedStore:
    return combined(store, RULE, lambda blocks: mixed_targets(blocks, TAU))


def measure_cold(job: CacheJob, method: Method) -> ColdEpoch:
    """Open what `measure_writing` left and read each record once, in a process that has read nothing of it before."""
    dropped = drop(_place("store", job)) and drop(_place(method, job))
    torch.zeros(1)  # torch's own beginning is not what is measured
    baseline, started = resident_bytes(), time.perf_counter()
    read, keys = _open(method, job)
    opened = time.perf_counter()
    for key in _shuffled(keys, SEED):
        read(key)
    return ColdEpoch(
        records=len(keys),
        open_seconds=opened - started,
        epoch_seconds=time.perf_counter() - opened,
        baseline_bytes=baseline,
        peak_bytes=peak_resident_bytes(),
        dropped=dropped,
    )


def measure_reading(job: CacheJob, *, after_each: Callable[[], object] = nothing) -> ReadTimes:
    """Random reads and whole epochs by each method, in turns, with all files in memory.

    Raises `MismatchError` where two methods do not give the same records.
    """
    warm(job.folder)
    opened = {method: _open(method, job) for method in METHODS}
    readers = {method: read for method, (read, _) in opened.items()}
    keys = sorted(opened["store"][1])
    for method, (_, found) in opened.items():
        if sorted(found) != keys:
            raise MismatchError(f"{method}: {len(found):,} records, {len(keys):,} are in the store; or other ones")
    compare(readers, _shuffled(keys, SEED)[:COMPARED])

    def timed(count: int, rounds: Mapping[Method, Collection[int]]) -> dict[Method, Rounds]:
        passes = {method: _Passes(read, keys, count) for method, read in readers.items()}
        return take_turns(
            passes,
            rounds_of=rounds,
            device=CPU,
            before_each=lambda method: passes[method].shuffle(),
            after_each=after_each,
        )

    return ReadTimes(
        reads=timed(job.reads, dict.fromkeys(METHODS, range(job.repeats))),
        epochs=timed(len(keys), rounds_of(METHODS, job.repeats, MOST_ROUNDS)),
    )


class _Passes:
    """Reads so many records in random order at each call; the same ones in the same round of every method."""

    def __init__(self, read: Read, keys: Sequence[str], count: int) -> None:
        self._read = read
        self._orders = (_shuffled(keys, SEED + number)[:count] for number in itertools.count(1))
        self._order: list[str] = []

    def __call__(self) -> None:
        for key in self._order:
            self._read(key)

    def shuffle(self) -> None:
        """Take another order."""
        self._order = next(self._orders)


def compare(readers: Mapping[Method, Read], keys: Sequence[str]) -> None:
    """Raise `MismatchError` unless all methods give the same records, as exactly as each of them stores."""
    for key in keys:
        stored, exact = readers["store"](key), readers[REFERENCE](key)
        (mixed,) = mixed_targets([stored.numpy()], TAU)
        pairs = {
            "store": (stored, exact.to(torch.float16)),
            "torch-save-float16": (readers["torch-save-float16"](key), stored),
            "memory-map": (readers["memory-map"](key), torch.from_numpy(mixed.attention)),
        }
        for method, (found, expected) in pairs.items():
            if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-5, atol=1e-7):
                raise MismatchError(f"{method}: record {key} is not what {REFERENCE} gives; one of the two is wrong")


def _open(method: Method, job: CacheJob) -> tuple[Read, Sequence[str]]:
    """How a method reads a record, and the keys of all it has."""
    if method in DTYPES:
        folder = _place(method, job)
        keys = [entry.name.removesuffix(SUFFIX) for entry in os.scandir(folder)]
        return lambda key: torch.load(f"{folder}/{key}{SUFFIX}", weights_only=True)[..., : -len(RECEIVERS)], keys
    store = AttentionStore.open(_space(job))
    if method == "store":
        return lambda key: torch.from_numpy(store[key]), list(store)
    mixed = _mixed(store)
    return lambda key: torch.from_numpy(mixed[key].attention.copy()), list(mixed)


def _shuffled(keys: Sequence[str], seed: int) -> list[str]:
    return [keys[i] for i in np.random.default_rng(seed).permutation(len(keys))]


def _setting(job: CacheJob, blocks: Sequence[AttentionBlock]) -> StoreSetting:
    return StoreSetting(
        records=len(blocks),
        values=sum(block.attention.size for block in blocks),
        sums=sum(_receivers(block).size for block in blocks),
        layers=len(blocks[0].attention),
        teacher=job.teacher or "random",
        seed=SEED,
        torch=torch.__version__,
        numpy=np.__version__,
        zarr=version("zarr"),
    )
