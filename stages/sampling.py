"""Timed samples of the stages: a small, representative share of the work is really done, and the whole reckoned up.

In: what a stage has to do, and a place to write to that is thrown away. Out: a `Sample`: seconds by the clock and of
processors, bytes and further memory that the whole stage will take. What happens once (imports, loading, checking) is
told apart from what grows with the work, and that is counted in what it goes by: padded tokens of batches for the
attention, streams of prompts for an engine, optimizer steps for training.

Times are pairs (seconds by the clock, seconds of processors): formulas below are linear in them, and on a machine that
others use as well the second is the one to compare.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from cache.certificates import NOTE
from cache.keys import record_key
from cache.rationales import RationaleStore
from cache.writer import AttentionBlock, AttentionWriter
from data.errors import ConfigError
from data.records import Marked, Question
from stages.attention.batches import TokenBudget, length_batches
from stages.attention.certify import certify
from stages.attention.stepwise import difference_to_eager, stepwise_of
from stages.attention.tokens import locate, token_counts
from stages.attention.write import attention_block
from stages.engines.contract import Decoding, Engine, EngineSetup
from stages.engines.start import open_engine
from stages.models.identity import ModelIdentity
from stages.models.load import load_teacher
from stages.models.size import commit_bytes, part_sizes
from stages.models.tokenizer import load_tokenizer
from stages.rationales.write import engine_setup, plan_rationales, write_rationales
from stages.runtime.progress import Progress, SilentProgress, StopSignal
from stages.settings import AttentionSettings, RationaleSettings, Task, TeacherSettings

Times: TypeAlias = npt.NDArray[np.float64]
"""(2,): seconds by the clock, seconds of processors."""

FIRST_STREAM = 16
"""Prompts of the first of two streams: what a stream takes grows with its prompts, but not in proportion."""
FULL_STREAM = 256
"""Prompts that keep an engine's batches full for most of the time."""
MOST_BATCHES = 12


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a whole stage will take by a sample of it.

    `units` is how much the whole comes to, of which `sampled` were done. `further_memory` are bytes that the whole
    will hold in memory beyond what the sample did. `assumptions` say what the counts rest on that nobody knows yet.
    """

    units: int
    sampled: int
    unit: str
    seconds: float
    cpu_seconds: float
    once_seconds: float
    bytes: int
    bytes_meanwhile: int = 0
    further_memory: int = 0
    assumptions: tuple[str, ...] = ()


class Stopwatch:
    """Time since it was made, and between two looks."""

    def __init__(self) -> None:
        self._started = self._last = _now()

    def lap(self) -> Times:
        """Time since the last look."""
        last, self._last = self._last, _now()
        return self._last - last

    def elapsed(self) -> Times:
        """Time since the beginning."""
        return _now() - self._started


def sample_rationales(
    questions: Sequence[Question],
    store: RationaleStore,
    teacher: TeacherSettings,
    settings: RationaleSettings,
    *,
    identity: ModelIdentity,
    seconds: float,
    progress: Progress,
) -> Sample:
    """Ask questions spread over the lengths in two goes, of which the second is as large as `seconds` allow.

    One question goes first, to warm up. The time of a stream is taken to be a + b · prompts, from the two goes, and the
    whole to have the streams of the larger one, with as many more prompts as it has more questions.
    """
    watch = Stopwatch()
    pending = plan_rationales(questions, store.attempts(), settings).pending
    to_do = list({id(ask.question): ask.question for asks in pending.values() for ask in asks}.values())
    chosen = _alternating([to_do[i] for i in _by_length([len(question.text) for question in to_do])])
    engine = (
        None if settings.engine == "file" else open_engine(settings.engine, engine_setup(teacher, settings, identity))
    )
    parts: list[_Stream] = []

    def stream(count: int) -> "_Stream":
        begin = sum(part.asked for part in parts)
        part = _ask(chosen[begin : begin + count], store, teacher, settings, identity=identity, engine=engine)
        parts.append(part)
        progress.advance(count)
        return part

    progress.start("sample of rationales", min(len(chosen), settings.piece + FIRST_STREAM + 1))
    try:
        warm = stream(1)
        once = watch.elapsed()
        first = stream(FIRST_STREAM)
        # A larger stream takes less than in proportion.
        most = int(FIRST_STREAM * seconds / max(first.times[0], 1e-3))
        if first.asked == FIRST_STREAM:
            stream(max(FIRST_STREAM, min(settings.piece, most)))
    finally:
        closing = Stopwatch()
        if engine is not None:
            engine.close()
    asked = max(1, sum(part.asked for part in parts))
    again = sum(part.again for part in parts) / asked
    prompts = len(to_do) * sum(part.prompts for part in parts) / asked
    streams = [part for part in parts[1:] if part.asked] or [warm]
    whole = _line([(part.prompts, part.times) for part in streams], [prompts])
    pieces = _pieces(prompts, settings.piece)
    stored = _line([(part.prompts, np.array([part.bytes, 0.0])) for part in (warm, *streams)], pieces)
    took = once - warm.times + whole + closing.elapsed()
    largest = max(part.asked for part in parts)
    return Sample(
        units=len(to_do),
        sampled=sum(part.asked for part in parts),
        unit="questions",
        seconds=float(took[0]),
        cpu_seconds=float(took[1]),
        once_seconds=float((once - warm.times)[0]),
        bytes=round(stored[0]),
        assumptions=(f"{again:.0%} of the questions are asked again with the answer shown",) * bool(again)
        + (f"a stream of {len(to_do):,} prompts is as fast as one of {largest:,} suggests",)
        * (2 * largest < min(FULL_STREAM, len(to_do))),
    )


@dataclass(frozen=True, kw_only=True)
class _Stream:
    """Some questions asked at once: prompts of all phases and samples; and how many needed a second phase."""

    asked: int
    prompts: int
    again: int
    times: Times
    bytes: int


def _ask(
    questions: Sequence[Question],
    store: RationaleStore,
    teacher: TeacherSettings,
    settings: RationaleSettings,
    *,
    identity: ModelIdentity,
    engine: Engine | None,
) -> _Stream:
    if not questions:
        return _Stream(asked=0, prompts=0, again=0, times=np.zeros(2), bytes=0)
    before = {commit.index for commit in store.space.commits()}
    watch = Stopwatch()
    write_rationales(
        questions, store, teacher, replace(settings, piece=max(1, len(questions))), identity=identity,
        progress=SilentProgress(), stop=StopSignal(), engine=engine,
    )  # fmt: skip
    times = watch.elapsed()
    commits = [commit for commit in store.space.commits() if commit.index not in before]
    made = [attempt for commit in commits for attempt in store.read_part(commit)]
    return _Stream(
        asked=len(questions),
        prompts=len(made),
        again=len({attempt.key for attempt in made if attempt.phase == "gold_shown"}),
        times=times,
        bytes=sum(commit_bytes(store.space.path, commit) for commit in commits),
    )


def sample_attention(
    records: Sequence[Marked],
    writer: AttentionWriter,
    teacher: TeacherSettings,
    settings: AttentionSettings,
    *,
    identity: ModelIdentity,
    total: int,
    seconds: float,
    progress: Progress,
) -> Sample:
    """Run batches spread evenly over the lengths, the longest first, and write what they give.

    `total` records are to be done; where fewer are known, the known ones stand for the others. A batch of the longest
    sets the peak of memory. Time goes by padded tokens, at a rate that depends on the length.
    """
    watch = Stopwatch()
    tokenizer = load_tokenizer(identity.path, identity.hub_revision, trust_remote_code=teacher.trust_remote_code)
    model = load_teacher(identity.path, identity.hub_revision, teacher)
    counts = token_counts(tokenizer, [marked.text for marked in records])
    limit = min(settings.max_length, getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 1 << 62)
    usable = [i for i, count in enumerate(counts) if count <= limit]
    if not usable:
        raise ConfigError(f"attention.max_length: none of {len(records):,} records has at most {limit:,} tokens")
    total = max(1, round(total * len(usable) / len(records)))
    everything = [usable[i % len(usable)] for i in range(total)]
    lengths = [counts[i] for i in everything]
    difference_to_eager(model, locate(tokenizer, records[min(usable, key=lambda i: counts[i])]))
    budget = TokenBudget(settings.batch_tokens)
    batches = length_batches(lengths, budget.tokens)
    blocks: dict[str, AttentionBlock] = {}

    def run(batch: Sequence[int]) -> Times:
        began = Stopwatch()
        chosen = [records[everything[i]] for i in batch]
        located = [locate(tokenizer, marked) for marked in chosen]
        for marked, one, found in zip(chosen, located, stepwise_of(model, located, budget), strict=True):
            key = record_key(marked)
            blocks.setdefault(key, attention_block(key, marked, one, found))
        return began.elapsed()

    once = watch.elapsed()
    warm = run(batches[0])
    places = spread(len(batches), MOST_BATCHES)
    progress.start("sample of attention", len(places))
    measured: dict[int, Times] = {}
    sampling = time.monotonic()
    for place in places[1:] + places[:1]:
        if measured and time.monotonic() - sampling > seconds:
            break
        measured[place] = run(batches[place])
        progress.advance()
    first = measured.get(0, warm)
    measured[0] = np.minimum(first, warm)
    computing = _over_batches(batches, lengths, measured)
    # Pieces are written while the next one is computed; only the last one has to be waited for.
    last = _line(_write_twice(writer, list(blocks.values())), [min(settings.piece, total)])
    cells = sum(len(marked.step_spans) * len(marked.critical_spans) for marked in records) / len(records)
    layers = len(next(iter(blocks.values())).attention)
    sizes = part_sizes(writer.space.path, writer.space.commits())
    assert sizes is not None, "a part was just written"
    # A piece is committed when it is full or when its time is up.
    parts = max(len(_pieces(total, settings.piece)), int(computing[0] / (60 * settings.commit_minutes)))
    took = once + (warm - measured[0]) + computing + last
    # Blocks are float32, and those of one piece are written while those of the next one come.
    held = 2 * 4 * cells * layers * max(0, min(settings.piece, total) - len(blocks))
    return Sample(
        units=total,
        sampled=len(blocks),
        unit="records",
        seconds=float(took[0]),
        cpu_seconds=float(took[1]),
        once_seconds=float(once[0]),
        bytes=sizes.of(cells * layers * total, total, parts),
        further_memory=round(held),
    )


def _write_twice(writer: AttentionWriter, blocks: Sequence[AttentionBlock]) -> list[tuple[int, Times]]:
    """Commit blocks as a small part and a large one: records and time of each."""
    small = max(1, len(blocks) // 8)
    points = []
    for some in (blocks[:small], blocks[small:]):
        if some:
            watch = Stopwatch()
            exact = [block.attention for block in some]
            writer.append(some, note={NOTE: certify(exact, writer.keep_bits).as_note()})
            points.append((len(some), watch.elapsed()))
    return points


def _over_batches(batches: Sequence[Sequence[int]], lengths: Sequence[int], measured: Mapping[int, Times]) -> Times:
    """Time of all batches: each by its padded tokens, at the rate that the measured ones have at its length."""
    longest = np.array([lengths[batch[0]] for batch in batches], dtype=np.float64)
    padded = longest * [len(batch) for batch in batches]
    places = sorted(measured, key=lambda place: longest[place])
    rates = np.array([measured[place] / padded[place] for place in places])
    known = longest[places]
    return np.array([float((padded * np.interp(longest, known, rates[:, i])).sum()) for i in range(2)])


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Batches of prompts of one kind: (prompts, time) of each, and what was written to all of them."""

    batches: tuple[tuple[int, Times], ...]
    outputs: tuple[str, ...]

    def time_of(self, rows: float) -> Times:
        """Time of a batch of so many prompts, taken to be a + b · rows."""
        return _line(self.batches, [rows])


def sample_answers(
    setup: EngineSetup,
    engine: Literal["transformers", "vllm"],
    prompts: Mapping[Task, Sequence[str]],
    *,
    rows: int,
    new_tokens: Mapping[Task, int],
    progress: Progress,
) -> tuple[Times, dict[Task, Answers]]:
    """Answer a batch of `rows` prompts of each kind, spread over the lengths, and a smaller one; also time to load."""
    watch = Stopwatch()
    found: dict[Task, Answers] = {}
    with open_engine(engine, setup) as running:
        once = watch.lap()
        for kind, texts in prompts.items():
            order = _by_length([len(text) for text in texts])
            running.generate([texts[order[0]]], Decoding(max_tokens=2))
            batches: list[tuple[int, Times]] = []
            outputs: list[str] = []
            for count in dict.fromkeys((min(rows, len(texts)), max(1, min(rows, len(texts)) // 3))):
                chosen = [texts[order[place]] for place in spread(len(order), count)]
                watch.lap()
                written = running.generate(chosen, Decoding(max_tokens=new_tokens[kind]))
                batches.append((len(chosen), watch.lap()))
                outputs += [output.text for output in written]
            found[kind] = Answers(batches=tuple(batches), outputs=tuple(outputs))
            progress.advance()
    return once, found


def write_random_student(identity: ModelIdentity, out: Path) -> None:
    """Save a model of the student's shape with random weights, and its tokenizer."""
    config = AutoConfig.from_pretrained(identity.path, revision=identity.hub_revision)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(out)
    load_tokenizer(identity.path, identity.hub_revision).save_pretrained(out)


def locating(tokenizer: PreTrainedTokenizerBase, records: Sequence[Marked]) -> tuple[Times, float]:
    """Time for, and bytes of, the tokens of a record that training holds, for both of its tasks."""
    watch = Stopwatch()
    found = [locate(tokenizer, marked) for marked in records]
    arrays = sum(one.ids.nbytes + one.spans.nbytes + one.step_of_token.nbytes for one in found)
    return 2 * watch.elapsed() / len(records), 3 * arrays / len(records) + 4096


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the places 0 … count − 1, evenly spread, first and last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))}) if count else []


def expected_longest(lengths: Sequence[int], rows: int) -> int:
    """Length of the longest of `rows` texts that are drawn from such lengths, in the median."""
    return int(np.ceil(np.quantile(np.asarray(lengths), 0.5 ** (1 / max(1, rows)))))


def padded_step(lengths: Sequence[int], batch_size: int) -> float:
    """Mean padded length of random batches: what a step's time goes by."""
    draws = np.random.default_rng(0).choice(np.asarray(lengths), (500, min(batch_size, len(lengths))))
    return float(draws.max(axis=1).mean())


def _by_length(lengths: Sequence[int]) -> list[int]:
    """Indices, longest first."""
    return sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


def _alternating(ordered: Sequence[Question]) -> list[Question]:
    """The same in an order of which every beginning is spread over the whole: steps of the golden ratio."""
    fractions = np.arange(len(ordered)) * 0.6180339887498949 % 1.0
    return [ordered[place] for place in np.argsort(np.argsort(fractions)).tolist()]


def _pieces(total: float, piece: int) -> list[float]:
    """Sizes of the pieces that `total` units come in."""
    whole, rest = divmod(total, piece)
    return [float(piece)] * int(whole) + ([rest] if rest > 1e-9 else [])


def _line(points: Sequence[tuple[int, Times]], sizes: Sequence[float]) -> Times:
    """Sum over `sizes` of a + b · size, with a and b not below zero, through the smallest and the largest point."""
    points = sorted((point for point in points if point[0]), key=lambda point: point[0])
    if not points:
        return np.zeros(2)
    (small, low), (large, high) = points[0], points[-1]
    each = np.clip((high - low) / (large - small), 0.0, high / large) if large > small else high / large
    start = high - each * large
    total: Times = np.asarray(start * len(sizes) + each * sum(sizes), dtype=np.float64)
    return total


def _now() -> Times:
    return np.array([time.monotonic(), time.process_time()])
