"""Stage one, second half: run the teacher once over every marked text and commit its stepwise attention.

In: marked records, the teacher, and the store's writer. Out: committed parts; nothing is returned, the store is the
result. Records that cannot be used are committed as dropped with their reason, so that no later run tries them again.
"""

import sys
from collections.abc import Container, Sequence
from itertools import islice

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cache.keys import record_key
from cache.writer import AttentionBlock, AttentionWriter
from data.records import Marked
from stages.attention import stepwise_attention
from stages.engines import load_tokenizer
from stages.loading import load_causal_lm, torch_device
from stages.models import ModelIdentity
from stages.progress import Progress, StopSignal
from stages.settings import AttentionSettings, TeacherSettings
from stages.tokens import Located, locate

TOO_LONG = "longer than max_length"


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
    located = {key: locate(tokenizer, marked) for key, marked in to_do.items()}
    model = _load_teacher(identity, teacher)
    longest = min(settings.max_length, _positions(model))
    # Neighbours in length share pieces, so that batches are full without padding.
    keys = iter(sorted(to_do, key=lambda key: (-len(located[key].ids), key)))
    while piece := list(islice(keys, settings.piece)):
        dropped = {key: TOO_LONG for key in piece if len(located[key].ids) > longest}
        kept = {key: to_do[key] for key in piece if key not in dropped}
        writer.append(_blocks(model, tokenizer, kept, located, settings.batch_tokens), dropped)
        progress.advance(len(piece))
        stop.check("the attention computed so far")


def _blocks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: dict[str, Marked],
    located: dict[str, Located],
    batch_tokens: int,
) -> list[AttentionBlock]:
    arrays = stepwise_attention(model, tokenizer, list(records.values()), batch_tokens=batch_tokens)
    return [
        AttentionBlock(key=key, marked=marked, attention=array, step_tokens=located[key].step_tokens())
        for (key, marked), array in zip(records.items(), arrays, strict=True)
    ]


def _load_teacher(identity: ModelIdentity, teacher: TeacherSettings) -> PreTrainedModel:
    """Load the teacher onto its device."""
    model = load_causal_lm(identity.path, identity.hub_revision, teacher.dtype)
    return model.to(torch_device(teacher.device)).eval()


def _positions(model: PreTrainedModel) -> int:
    """Most tokens that the model knows positions for."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize)
