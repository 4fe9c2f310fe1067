"""Stage one, second half: run the teacher once over every marked text and commit its stepwise attention.

In: marked records, the teacher, and the store's writer. Out: committed parts; nothing is returned, the store is the
result. Records that cannot be used are committed as dropped with their reason, so that no later run tries them again.

Before the first batch one record is compared with transformers' own eager attention: should a model, a kernel or a
release compute something that we do not know of, nothing is written.
"""

import logging
import sys
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from types import MappingProxyType

from transformers import PreTrainedModel

from cache.certificates import NOTE
from cache.commits import Commit
from cache.fingerprints import JSON
from cache.keys import record_key
from cache.writer import AttentionBlock, AttentionWriter
from data.errors import ModelError
from data.records import Marked
from stages.attention.batches import TokenBudget
from stages.attention.certify import certify
from stages.attention.kernels import BLOCKS, Way
from stages.attention.stepwise import StepwiseAttention, difference_to_eager, stepwise_of
from stages.attention.tokens import Located, locate, token_counts
from stages.models.identity import ModelIdentity
from stages.models.load import load_teacher
from stages.models.tokenizer import load_tokenizer
from stages.runtime.progress import Progress, StopSignal
from stages.settings import AttentionSettings, Dtype, TeacherSettings

log = logging.getLogger(__name__)
TOO_LONG = "longer than max_length"
MOST_HELD_BYTES = 512 << 20
"""Attention in float32 at which a part is committed although it could have more records; as much again is being
written meanwhile."""
TOLERANCE: Mapping[Dtype, float] = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.1}
"""How far a layer may be from eager attention, relative to its norm: rounding stays below, another formula does not."""


def write_attention(
    records: Sequence[Marked],
    writer: AttentionWriter,
    known: Container[str],
    teacher: TeacherSettings,
    settings: AttentionSettings,
    *,
    identity: ModelIdentity,
    progress: Progress,
    stop: StopSignal,
) -> None:
    """Compute and commit the attention of every record whose key is not in `known`.

    A commit has `settings.piece` records, or fewer where it took more than `settings.commit_minutes` to compute them.
    Raises `ConfigError` or `ModelError` for a teacher that cannot be used, `Interrupted` when a signal asks to stop:
    after the current batch, with everything that was computed committed. Nothing is loaded where nothing is to be done.
    """
    wanted = {record_key(marked): marked for marked in records}
    to_do = {key: marked for key, marked in wanted.items() if key not in known}
    if not to_do:
        return
    progress.note(f"loading {identity.name}")
    tokenizer = load_tokenizer(identity.path, identity.hub_revision, trust_remote_code=teacher.trust_remote_code)
    # Lengths only: the tokens of a large set, with their places in the text, would fill gigabytes.
    lengths = dict(zip(to_do, token_counts(tokenizer, [marked.text for marked in to_do.values()]), strict=True))
    model = load_teacher(identity.path, identity.hub_revision, teacher)
    longest = min(settings.max_length, _positions(model))
    # Neighbours in length share batches, so that these are full without padding.
    ordered = sorted(to_do, key=lambda key: (-lengths[key], key))
    ways: Mapping[int, Way] = {}
    if lengths[shortest := ordered[-1]] <= longest:
        ways = _require_like_eager(model, locate(tokenizer, to_do[shortest]), teacher.dtype, progress)
    progress.start("attention", len(to_do))
    budget = TokenBudget(settings.batch_tokens)
    too_long = {key: TOO_LONG for key in ordered if lengths[key] > longest}
    with _gathering(writer, settings, progress) as gathering:
        gathering.note = {"kernel": _layers(ways)}
        gathering.add([], too_long)
        for batch in _batches(ordered[len(too_long) :], lengths, budget):
            located = [locate(tokenizer, to_do[key]) for key in batch]
            found = stepwise_of(model, located, budget)
            gathering.note = {"kernel": _layers(ways), "batch_tokens": budget.tokens}
            gathering.add(
                [
                    attention_block(key, to_do[key], one, attention)
                    for key, one, attention in zip(batch, located, found, strict=True)
                ]
            )
            stop.check("the attention computed so far")


def attention_block(key: str, marked: Marked, located: Located, found: StepwiseAttention) -> AttentionBlock:
    """What is stored of one record; copied, for a batch's array would be kept by the smallest part of it."""
    return AttentionBlock(
        key=key,
        marked=marked,
        attention=found.words.copy(),
        step_tokens=located.step_tokens(),
        receivers=found.receivers.copy(),
    )


def _batches(ordered: Sequence[str], lengths: Mapping[str, int], budget: TokenBudget) -> Iterator[Sequence[str]]:
    """Cut keys, longest text first, into batches under a budget that may become smaller on the way.

    They are those of `stages.attention.batches.length_batches` over all records, whatever is committed when.
    """
    first = 0
    while first < len(ordered):
        count = max(1, budget.tokens // max(1, lengths[ordered[first]]))
        yield ordered[first : first + count]
        first += count


class _Gathering:
    """Gathers blocks and commits them as parts, in a thread of its own, one part at a time, while others are computed.

    A part is committed when it is full, or large, or when the last commit was long ago.
    """

    def __init__(
        self, writer: AttentionWriter, settings: AttentionSettings, progress: Progress, thread: ThreadPoolExecutor
    ) -> None:
        self.note: Mapping[str, JSON] = {}
        """Recorded with the commits from now on."""
        self._writer = writer
        self._settings = settings
        self._progress = progress
        self._thread = thread
        self._blocks: list[AttentionBlock] = []
        self._dropped: list[tuple[str, str]] = []
        self._began = time.monotonic()
        self._pending: tuple[Future[Commit], int] | None = None

    def add(self, blocks: Sequence[AttentionBlock], dropped: Mapping[str, str] = MappingProxyType({})) -> None:
        """Take what was computed, and commit what is due; raises the error of an earlier commit."""
        self._blocks += blocks
        self._dropped += dropped.items()
        while len(self._dropped) + len(self._blocks) >= self._settings.piece:
            self._commit()
        if self._is_due():
            self.commit_all()

    def commit_all(self) -> None:
        """Hand over everything that was gathered, and wait until it is committed."""
        while self._blocks or self._dropped:
            self._commit()
        self.wait()

    def _is_due(self) -> bool:
        minutes = (time.monotonic() - self._began) / 60
        held = sum(block.nbytes for block in self._blocks)
        return minutes >= self._settings.commit_minutes or held >= MOST_HELD_BYTES

    def _commit(self) -> None:
        """Hand over one part; waits for the one before, whose error it raises."""
        self.wait()
        piece = self._settings.piece
        dropped, self._dropped = dict(self._dropped[:piece]), self._dropped[piece:]
        room = piece - len(dropped)
        blocks, self._blocks = self._blocks[:room], self._blocks[room:]
        self._pending = self._thread.submit(self._append, blocks, dropped, self.note), len(blocks) + len(dropped)
        self._began = time.monotonic()

    def _append(self, blocks: Sequence[AttentionBlock], dropped: Mapping[str, str], note: Mapping[str, JSON]) -> Commit:
        if not blocks:
            return self._writer.append(blocks, dropped, note=note)
        certificate = certify([block.attention for block in blocks], self._writer.keep_bits)
        return self._writer.append(blocks, dropped, note={**note, NOTE: certificate.as_note()})

    def wait(self) -> None:
        """Wait until all that was handed over is committed."""
        if self._pending is not None:
            future, records = self._pending
            self._pending = None
            try:
                future.result()
            except Exception:
                self._blocks, self._dropped = [], []  # what cannot be written now is computed by the next run
                raise
            self._progress.advance(records)


@contextmanager
def _gathering(writer: AttentionWriter, settings: AttentionSettings, progress: Progress) -> Iterator[_Gathering]:
    """Whatever ends the work inside, what was computed is committed on leaving; not so where writing itself fails."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="write") as thread:
        gathering = _Gathering(writer, settings, progress, thread)
        try:
            yield gathering
        finally:
            gathering.commit_all()


def _require_like_eager(
    model: PreTrainedModel, located: Located, dtype: Dtype, progress: Progress
) -> Mapping[int, Way]:
    """Raise `ModelError` where attention is not that of `output_attentions=True`; log and return the layers' ways."""
    difference, ways = difference_to_eager(model, located)
    if difference is not None and difference > TOLERANCE[dtype]:
        raise ModelError(
            f"model type {model.config.model_type}: its attention differs from transformers' own eager attention by "
            f"{difference:.1%} on a text of {len(located.ids)} tokens, more than {dtype} explains; nothing was written"
        )
    compared = "no eager attention to compare with" if difference is None else f"{difference:.1e} from eager attention"
    log.info("attention: %s; %s on %d tokens", _layers(ways), compared, len(located.ids))
    if BLOCKS in ways.values():
        progress.note(f"attention: {_layers(ways)}: no fused kernel does what some layers ask for")
    return ways


def _layers(ways: Mapping[int, Way]) -> str:
    """`layers 0-3 by log-sum-exp, layer 4 block by block`."""
    runs = [[layer for layer, _ in run] for _, run in groupby(sorted(ways.items()), key=lambda item: item[1])]
    return ", ".join(
        f"layer {run[0]}: {ways[run[0]]}" if len(run) == 1 else f"layers {run[0]}-{run[-1]}: {ways[run[0]]}"
        for run in runs
    )


def _positions(model: PreTrainedModel) -> int:
    """Most tokens that the model knows positions for."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize)
