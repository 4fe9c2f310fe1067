"""Stage one, second half: run the teacher once over every marked text and commit its stepwise attention.

In: marked records, the teacher, and the store's writer. Out: committed parts; nothing is returned, the store is the
result. Records that cannot be used are committed as dropped with their reason, so that no later run tries them again.

Before the first batch one record is compared with transformers' own eager attention: should a model, a kernel or a
release compute something that we do not know of, nothing is written.
"""

import logging
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import nullcontext
from itertools import groupby
from typing import Protocol

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cache.certificates import NOTE
from cache.commits import Commit
from cache.fingerprints import JSON
from cache.keys import records_without
from cache.writer import AttentionBlock, AttentionWriter
from data.errors import ModelError
from data.records import Marked
from stages.attention.batches import TokenBudget, key_batches
from stages.attention.certify import certify
from stages.attention.kernels import BLOCKS, Way
from stages.attention.stepwise import StepwiseAttention, difference_to_eager, stepwise_of
from stages.attention.tokens import Located, locate, token_counts
from stages.models.identity import ModelIdentity
from stages.models.load import known_positions, load_whole_teacher
from stages.models.tokenizer import begin_token, load_tokenizer
from stages.runtime.pieces import Gathering, gathering_blocks
from stages.runtime.progress import COMMITTED, Progress, StopSignal
from stages.settings import AttentionSettings, Dtype, TeacherSettings

log = logging.getLogger(__name__)
TOO_LONG = "longer than max_length"
TOLERANCE: Mapping[Dtype, float] = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.1}
"""How far a layer may be from eager attention, relative to its norm: rounding stays below, another formula does not."""


class Beside(Protocol):
    """Whoever makes something else of the pass over the same texts; a context that commits on leaving."""

    def begin(self, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, progress: Progress) -> bool:
        """Get ready, and say whether this teacher's pass is of use."""

    def of(
        self, records: Sequence[tuple[str, Marked]], located: Sequence[Located]
    ) -> Callable[[Sequence[int], torch.Tensor], object]:
        """What takes the last hidden states (B, T, C) of some of these records, by their numbers."""

    def done(self) -> None:
        """Take in what was made of the records of the last `of`."""

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...


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
    beside: Beside | None = None,
) -> None:
    """Compute and commit the attention of every record whose key is not in `known`; `beside` sees the same pass.

    A commit has `settings.piece` records, or fewer where it took more than `settings.commit_minutes` to compute them.
    Raises `ConfigError` or `ModelError` for a teacher that cannot be used, `Interrupted` when a signal asks to stop:
    after the current batch, with everything that was computed committed. Nothing is loaded where nothing is to be done.
    """
    to_do = records_without(known, records)
    if not to_do:
        return
    progress.note(f"loading {identity.name}")
    with stop.at_once(COMMITTED):
        texts = Texts(to_do, teacher, settings, identity)
        whole = load_whole_teacher(identity.path, identity.hub_revision, teacher)
    beside = beside if beside is not None and beside.begin(whole, texts.tokenizer, progress) else None
    model: PreTrainedModel = whole.base_model
    del whole  # its head, unless somebody beside holds it
    ordered, too_long = texts.ordered(min(settings.max_length, known_positions(model)))
    ways: Mapping[int, Way] = {}
    if ordered:
        with stop.at_once(COMMITTED):
            ways = _require_like_eager(model, texts.located(ordered[-1]), teacher.dtype, progress)
    progress.start("attention", len(to_do))
    progress.saved(0)
    budget = TokenBudget(settings.batch_tokens)
    with (
        nullcontext() if beside is None else beside,
        gathering(writer, settings, progress.saved, {"kernel": layers_by_way(ways)}) as gathered,
    ):
        for key in too_long:
            gathered.add(key)
            progress.advance()
        for batch in key_batches(ordered, texts.lengths, budget):
            located = [texts.located(key) for key in batch]
            also = None if beside is None else beside.of([(key, to_do[key]) for key in batch], located)
            found = stepwise_of(model, located, budget, also=also)
            gathered.write = _append(writer, {"kernel": layers_by_way(ways), "batch_tokens": budget.tokens})
            for key, one, attention in zip(batch, located, found, strict=True):
                gathered.add(attention_block(key, to_do[key], one, attention))
            if beside is not None:
                beside.done()
            progress.advance(len(batch))
            stop.check("the attention computed so far")


class Texts:
    """The texts of records: how long each is, and its tokens with their places once they are wanted.

    The tokens of a large set, with their places in the text, would fill gigabytes.
    """

    def __init__(
        self,
        marked: Mapping[str, Marked],
        teacher: TeacherSettings,
        settings: AttentionSettings,
        identity: ModelIdentity,
    ) -> None:
        self.tokenizer = load_tokenizer(
            identity.path, identity.hub_revision, trust_remote_code=teacher.trust_remote_code
        )
        self._marked = marked
        self._begin = begin_token(self.tokenizer) if settings.begin_token else None
        counts = token_counts(self.tokenizer, [one.text for one in marked.values()])
        self.lengths = {key: count + (self._begin is not None) for key, count in zip(marked, counts, strict=True)}

    def located(self, key: str) -> Located:
        """The text of a record in tokens."""
        return locate(self.tokenizer, self._marked[key], begin=self._begin)

    def ordered(self, longest: int) -> tuple[list[str], list[str]]:
        """The records from the longest to the shortest, and those with more tokens than `longest`.

        Neighbours in length share batches, so that these are full without padding.
        """
        by_length = sorted(self.lengths, key=lambda key: (-self.lengths[key], key))
        too_long = [key for key in by_length if self.lengths[key] > longest]
        return by_length[len(too_long) :], too_long


def gathering(
    writer: AttentionWriter,
    settings: AttentionSettings,
    done: Callable[[int], None],
    note: Mapping[str, JSON],
) -> Gathering[AttentionBlock | str, Commit]:
    """What commits records by pieces; of those that are too long it takes the key."""
    return gathering_blocks(_append(writer, note), settings, done)


def _append(writer: AttentionWriter, note: Mapping[str, JSON]) -> Callable[[Sequence[AttentionBlock | str]], Commit]:
    """What commits a piece, of records that are too long the key, with a certificate of what storing it has changed."""

    def append(items: Sequence[AttentionBlock | str]) -> Commit:
        blocks = [item for item in items if isinstance(item, AttentionBlock)]
        dropped = {item: TOO_LONG for item in items if isinstance(item, str)}
        if not blocks:
            return writer.append(blocks, dropped, note=note)
        certificate = certify([block.attention for block in blocks], writer.keep_bits)
        return writer.append(blocks, dropped, note={**note, NOTE: certificate.as_note()})

    return append


def attention_block(key: str, marked: Marked, located: Located, found: StepwiseAttention) -> AttentionBlock:
    """What is stored of one record; copied, for a batch's array would be kept by the smallest part of it."""
    return AttentionBlock(
        key=key,
        marked=marked,
        attention=found.words.copy(),
        step_tokens=located.step_tokens(),
        receivers=found.receivers.copy(),
    )


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
    log.info("attention: %s; %s on %d tokens", layers_by_way(ways), compared, len(located.ids))
    if BLOCKS in ways.values():
        progress.note(f"attention: {layers_by_way(ways)}: no fused kernel does what some layers ask for")
    return ways


def layers_by_way(ways: Mapping[int, Way]) -> str:
    """`layers 0-3 by log-sum-exp, layer 4 block by block`."""
    runs = [[layer for layer, _ in run] for _, run in groupby(sorted(ways.items()), key=lambda item: item[1])]
    return ", ".join(
        f"layer {run[0]}: {ways[run[0]]}" if len(run) == 1 else f"layers {run[0]}-{run[-1]}: {ways[run[0]]}"
        for run in runs
    )
