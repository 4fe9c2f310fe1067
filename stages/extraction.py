"""Stage one, second half: run the teacher once over every marked text and commit its stepwise attention.

In: marked records, the teacher, and the store's writer. Out: committed parts; nothing is returned, the store is the
result. Records that cannot be used are committed as dropped with their reason, so that no later run tries them again.

Before the first batch one record is compared with transformers' own eager attention: should a model, a kernel or a
release compute something that we do not know of, nothing is written.
"""

import logging
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby, islice

from transformers import PreTrainedModel

from cache.certificates import NOTE
from cache.commits import Commit
from cache.fingerprints import JSON
from cache.keys import record_key
from cache.writer import AttentionBlock, AttentionWriter
from data.errors import ModelError
from data.records import Marked
from stages.attention import attention_of, difference_to_eager
from stages.batches import TokenBudget
from stages.engines import load_tokenizer
from stages.kernels import BLOCKS, Way
from stages.loading import load_teacher
from stages.models import ModelIdentity
from stages.progress import Progress, StopSignal
from stages.rounding import certify
from stages.settings import AttentionSettings, Dtype, TeacherSettings
from stages.tokens import Located, locate, token_counts

log = logging.getLogger(__name__)
TOO_LONG = "longer than max_length"
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
    """Compute and commit the attention of every record whose key is not in `known`, `settings.piece` records a commit.

    Raises `ConfigError` or `ModelError` for a teacher that cannot be used, `Interrupted` after committing the current
    piece when a signal asks to stop. Nothing is loaded where nothing is to be done.
    """
    wanted = {record_key(marked): marked for marked in records}
    to_do = {key: marked for key, marked in wanted.items() if key not in known}
    if not to_do:
        return
    progress.start("attention", len(to_do))
    tokenizer = load_tokenizer(identity.path, identity.hub_revision)
    # Lengths only: the tokens of a large set, with their places in the text, would fill gigabytes.
    lengths = dict(zip(to_do, token_counts(tokenizer, [marked.text for marked in to_do.values()]), strict=True))
    model = load_teacher(identity.path, identity.hub_revision, teacher)
    longest = min(settings.max_length, _positions(model))
    # Neighbours in length share pieces, so that batches are full without padding.
    ordered = sorted(to_do, key=lambda key: (-lengths[key], key))
    ways: Mapping[int, Way] = {}
    if lengths[shortest := ordered[-1]] <= longest:
        ways = _require_like_eager(model, locate(tokenizer, to_do[shortest]), teacher.dtype, progress)
    budget = TokenBudget(settings.batch_tokens)
    keys = iter(ordered)
    with _writing(writer, progress) as write:
        while piece := list(islice(keys, settings.piece)):
            dropped = {key: TOO_LONG for key in piece if lengths[key] > longest}
            kept = [key for key in piece if key not in dropped]
            located = [locate(tokenizer, to_do[key]) for key in kept]
            arrays = attention_of(model, located, budget)
            blocks = [
                AttentionBlock(key=key, marked=to_do[key], attention=array, step_tokens=one.step_tokens())
                for key, one, array in zip(kept, located, arrays, strict=True)
            ]
            write(blocks, dropped, {"kernel": _layers(ways), "batch_tokens": budget.tokens})
            stop.check("the attention computed so far")


class _Write:
    """Measures and commits pieces in a thread of its own, one at a time, while the next one is computed."""

    def __init__(self, writer: AttentionWriter, progress: Progress, thread: ThreadPoolExecutor) -> None:
        self._writer = writer
        self._progress = progress
        self._thread = thread
        self._pending: tuple[Future[Commit], int] | None = None

    def __call__(self, blocks: Sequence[AttentionBlock], dropped: Mapping[str, str], note: Mapping[str, JSON]) -> None:
        """Commit a piece; waits for the one before, whose error it raises."""
        self.wait()
        future = self._thread.submit(self._append, blocks, dropped, note)
        self._pending = future, len(blocks) + len(dropped)

    def _append(self, blocks: Sequence[AttentionBlock], dropped: Mapping[str, str], note: Mapping[str, JSON]) -> Commit:
        if not blocks:
            return self._writer.append(blocks, dropped, note=note)
        certificate = certify([block.attention for block in blocks], self._writer.keep_bits)
        return self._writer.append(blocks, dropped, note={**note, NOTE: certificate.as_note()})

    def wait(self) -> None:
        """Wait until all pieces are committed."""
        if self._pending is not None:
            future, records = self._pending
            self._pending = None
            future.result()
            self._progress.advance(records)


@contextmanager
def _writing(writer: AttentionWriter, progress: Progress) -> Iterator[_Write]:
    """Whatever happens inside, what was handed over is committed on leaving."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="write") as thread:
        write = _Write(writer, progress, thread)
        try:
            yield write
        finally:
            write.wait()


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
