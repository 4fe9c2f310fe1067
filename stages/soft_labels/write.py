"""Stage one, for objectives with soft labels: run the teacher over every rationale and commit what it held possible.

In: marked records, the teacher, and the store's writer. Out: committed parts; nothing is returned, the store is the
result. Records that are too long are committed as dropped, so that no later run tries them again. Where hidden states
are kept, the head by which they become logits is committed before the first of them.
"""

from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any, Literal, Self

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cache.commits import Commit
from cache.keys import records_without
from cache.soft_labels.block import SoftLabelBlock
from cache.soft_labels.writer import SoftLabelWriter
from data.records import Marked
from stages.attention.batches import TokenBudget, key_batches
from stages.attention.tokens import Located, token_counts
from stages.attention.write import TOO_LONG
from stages.models.identity import ModelIdentity
from stages.models.load import known_positions, load_whole_teacher
from stages.models.tokenizer import begin_token, load_tokenizer
from stages.runtime.pieces import Gathering, gathering_blocks
from stages.runtime.progress import COMMITTED, Progress, StopSignal
from stages.settings import SoftLabelSettings, TeacherSettings
from stages.soft_labels.head import ends_at_its_head
from stages.soft_labels.teacher import Keeping, TeacherPass, prompt_of, teacher_text, teacher_texts


def write_soft_labels(
    records: Sequence[Marked],
    writer: SoftLabelWriter,
    known: Container[str],
    teacher: TeacherSettings,
    settings: SoftLabelSettings,
    *,
    identity: ModelIdentity,
    progress: Progress,
    stop: StopSignal,
) -> None:
    """Compute and commit the rows of every record whose key is not in `known`.

    A commit has `settings.piece` records, or fewer where it took more than `settings.commit_minutes` to compute them.
    Raises `ConfigError` or `ModelError` for a teacher that cannot be used, `Interrupted` when a signal asks to stop:
    after the current batch, with everything that was computed committed. Nothing is loaded where nothing is to be done.
    """
    to_do = records_without(known, records)
    if not to_do:
        return
    progress.note(f"loading {identity.name}")
    with stop.at_once(COMMITTED):
        tokenizer = load_tokenizer(identity.path, identity.hub_revision, trust_remote_code=teacher.trust_remote_code)
        begin = begin_token(tokenizer) if settings.context == "plain" and settings.begin_token else None
        texts = [prompt_of(marked, settings.context) + marked.rationale for marked in to_do.values()]
        counts = token_counts(tokenizer, texts)  # lengths only: all tokens, with their places, fill gigabytes
        lengths = {key: count + (begin is not None) for key, count in zip(to_do, counts, strict=True)}
        model = load_whole_teacher(identity.path, identity.hub_revision, teacher)
    asked = TeacherPass(model, keeping_of(settings, teacher))
    _append_head(writer, asked)
    longest = min(settings.max_length, known_positions(model))
    ordered = sorted(to_do, key=lambda key: (-lengths[key], key))  # neighbours in length share batches
    too_long = [key for key in ordered if lengths[key] > longest]
    progress.start("soft labels", len(to_do))
    progress.saved(0)
    budget = TokenBudget(settings.batch_tokens, setting="soft_labels.batch_tokens")
    with _gathering(writer, settings, progress.saved) as gathered:
        for key in too_long:
            gathered.add(key)
            progress.advance()
        for batch in key_batches(ordered[len(too_long) :], lengths, budget):
            some = {key: to_do[key] for key in batch}
            for block in asked.blocks(teacher_texts(tokenizer, some, context=settings.context, begin=begin), budget):
                gathered.add(block)
            progress.advance(len(batch))
            stop.check("the soft labels computed so far")


class BesideAttention:
    """Soft labels in the context `plain` from the pass that records attention over the same texts.

    What is too long for them, or was done before, is left to `write_soft_labels`.
    """

    def __init__(
        self, writer: SoftLabelWriter, known: Container[str], teacher: TeacherSettings, settings: SoftLabelSettings
    ) -> None:
        assert settings.context == "plain", "the pass reads plain texts"
        self._writer, self._known, self._teacher, self._settings = writer, known, teacher, settings
        self._gathered = _gathering(writer, settings, lambda _: None)
        self._found: dict[str, SoftLabelBlock] = {}

    def begin(self, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, progress: Progress) -> bool:
        """Look at the head; a teacher whose logits are more than that of its body's output has a pass of its own."""
        self._asked, self._end = TeacherPass(teacher, keeping_of(self._settings, self._teacher)), tokenizer.eos_token_id
        if self._end is None or self._asked.head is None or not ends_at_its_head(teacher):
            return False
        _append_head(self._writer, self._asked)
        progress.note("soft labels come from the same pass")
        return True

    def of(
        self, records: Sequence[tuple[str, Marked]], located: Sequence[Located]
    ) -> Callable[[Sequence[int], torch.Tensor], None]:
        """What makes rows of the last hidden states of some of these records."""
        texts = {
            number: teacher_text(key, marked, one.ids, one.spans, marked.rationale_start, end=self._end)
            for number, ((key, marked), one) in enumerate(zip(records, located, strict=True))
            if key not in self._known and len(one.ids) <= self._settings.max_length
        }

        def take(batch: Sequence[int], hidden_BTC: torch.Tensor) -> None:
            rows = [row for row, number in enumerate(batch) if number in texts]
            wanted = [texts[batch[row]] for row in rows]
            if wanted:
                self._found |= {block.key: block for block in self._asked.blocks_of(wanted, hidden_BTC[rows])}

        return take

    def done(self) -> None:
        """Take in the rows of the last records."""
        for block in self._found.values():
            self._gathered.add(block)
        self._found = {}

    def __enter__(self) -> Self:
        self._gathered.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Commit what was gathered."""
        self._gathered.__exit__(*error)


def _gathering(
    writer: SoftLabelWriter, settings: SoftLabelSettings, done: Callable[[int], None]
) -> Gathering[SoftLabelBlock | str, Commit]:
    return gathering_blocks(partial(_append, writer), settings, done)


def _append_head(writer: SoftLabelWriter, asked: TeacherPass) -> None:
    """Commit the head by which hidden states become logits, where these are kept."""
    if asked.keeping.layout == "hidden":
        assert asked.head is not None, "hidden states are refused without a head"
        writer.append_head(*asked.head.arrays(asked.keeping.hidden))


def keeping_of(settings: SoftLabelSettings, teacher: TeacherSettings) -> Keeping:
    """What is kept of each row; hidden states in the teacher's own precision."""
    assert settings.layout != "auto", "the objective says which layout"
    hidden: Literal["float16", "float32"] = "float32" if teacher.dtype == "float32" else "float16"
    return Keeping(layout=settings.layout, k=settings.k, draws=settings.k, seed=settings.seed, hidden=hidden)


def _append(writer: SoftLabelWriter, items: Sequence[SoftLabelBlock | str]) -> Commit:
    """Commit a piece; of records that are too long it holds the key."""
    blocks = [item for item in items if isinstance(item, SoftLabelBlock)]
    return writer.append(blocks, {item: TOO_LONG for item in items if isinstance(item, str)})
