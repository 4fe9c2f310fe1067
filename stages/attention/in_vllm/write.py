"""The pass over the records by vLLM: `attention.engine: vllm`, and what follows rationales that the same engine wrote.

In: records, the teacher, and an engine that runs already or none. Out: committed attention, in the same parts as those
of `stages.attention.write`. Before anything is written, one record is compared with transformers' own eager attention
of the same teacher, or, where that cannot be loaded beside the engine, with the plain formula on the engine's queries
and keys; the log and every commit say which.
"""

import logging
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import psutil
from transformers import AutoConfig

from cache.fingerprints import JSON
from cache.keys import records_without
from cache.writer import AttentionWriter
from data.errors import ConfigError, ModelError
from data.records import Marked
from stages.attention.in_vllm.engine import VllmAttention, vllm_version
from stages.attention.in_vllm.worker import EXTENSION
from stages.attention.spec import telling_arguments
from stages.attention.stepwise import distance, eager_attention
from stages.attention.tokens import Located
from stages.attention.write import TOLERANCE, Texts, attention_block, gathering, layers_by_way
from stages.engines.contract import Decoding, Engine, EngineArguments, EngineSetup
from stages.engines.kinds.vllm import VllmEngine
from stages.engines.start import RestartingEngine, open_engine
from stages.models.identity import ModelIdentity
from stages.models.load import load_whole_teacher
from stages.models.size import model_size
from stages.runtime.progress import COMMITTED, Progress, StopSignal
from stages.settings import AttentionSettings, TeacherSettings

log = logging.getLogger(__name__)
CHUNK_TOKENS = 65536
"""Texts that are read between two looks at signals and the clock have about so many tokens."""
COMPARED = "compared"
"""What the comparison said, in the notes of commits."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def write_attention_by_vllm(
    records: Sequence[Marked],
    writer: AttentionWriter,
    known: Container[str],
    teacher: TeacherSettings,
    settings: AttentionSettings,
    *,
    identity: ModelIdentity,
    progress: Progress,
    stop: StopSignal,
    engine: VllmEngine | None = None,
) -> None:
    """Compute and commit the attention of every record whose key is not in `known`, as `write_attention` does.

    With `engine`, which was started with `EXTENSION`, records that are longer than it takes are left to a pass of their
    own. Raises `ConfigError` or `ModelError` for a teacher that cannot be used, `EngineError` where the engine fails,
    and `Interrupted` when a signal asks to stop; what was computed is committed.
    """
    to_do = records_without(known, records)
    if not to_do:
        return
    with stop.at_once(COMMITTED):
        texts = Texts(to_do, teacher, settings, identity)
    longest = longest_of(identity, teacher, settings.max_length)
    given = engine is not None
    if not given:
        progress.note(f"starting vllm with {identity.name}")
    own = started(teacher, settings, identity, longest=longest, stop=stop) if engine is None else nullcontext(engine)
    with own as running:
        attention = VllmAttention(running)
        if not given and attention.longest < longest:
            raise ConfigError(
                f"attention.engine_arguments: the engine takes texts of up to {attention.longest:,} tokens, and "
                f"attention.max_length is {longest:,}; raise max_model_len and max_num_batched_tokens, or lower that"
            )
        ordered, too_long = texts.ordered(longest)
        ordered = [key for key in ordered if texts.lengths[key] <= attention.longest]
        compared = ""
        if ordered:
            shortest = texts.located(ordered[-1])
            compared = _compared_before(writer) or _compared(attention, shortest, teacher, identity, settings, progress)
        progress.start("attention", len(ordered) + len(too_long))
        progress.saved(0)
        note: dict[str, JSON] = {"engine": "vllm", COMPARED: compared}
        with gathering(writer, settings, progress.saved, note) as gathered:
            for key in too_long:
                gathered.add(key)
                progress.advance()
            for keys in _chunks(ordered, texts.lengths):
                located = [texts.located(key) for key in keys]
                found_of = attention.of(keys, located)
                note["kernel"] = layers_by_way(attention.ways)
                for key, one, found in zip(keys, located, found_of, strict=True):
                    gathered.add(attention_block(key, to_do[key], one, found))
                progress.advance(len(keys))
                stop.check("the attention computed so far")


def vllm_of(engine: Engine) -> VllmEngine:
    """The engine itself, which may stand behind one that starts it again."""
    found = engine.running if isinstance(engine, RestartingEngine) else engine
    assert isinstance(found, VllmEngine), type(found)
    return found


@contextmanager
def started(
    teacher: TeacherSettings,
    settings: AttentionSettings,
    identity: ModelIdentity,
    *,
    longest: int,
    stop: StopSignal | None = None,
) -> Iterator[VllmEngine]:
    """An engine that sees attention and has room for texts of `longest` tokens."""
    setup = attention_setup(teacher, settings, identity, longest=longest, stop=stop)
    with open_engine("vllm", setup, setting="attention.engine") as engine:
        yield vllm_of(engine)


def attention_setup(
    teacher: TeacherSettings,
    settings: AttentionSettings,
    identity: ModelIdentity,
    *,
    longest: int,
    stop: StopSignal | None = None,
) -> EngineSetup:
    """How vLLM is started for the attention alone."""
    room: EngineArguments = {"max_model_len": longest + 1, "max_num_batched_tokens": max(longest + 1, 8192)}
    return EngineSetup(
        model=identity.path,
        revision=identity.hub_revision,
        decoding=Decoding(max_tokens=1),
        dtype=teacher.dtype,
        device=teacher.device,
        trust_remote_code=teacher.trust_remote_code,
        arguments={**room, **settings.engine_arguments},
        extension=EXTENSION,
        stop=stop,
    )


def _compared_before(writer: AttentionWriter) -> str:
    """What this version's comparison said that an earlier commit of the space rests on; empty where there is none."""
    said = (str(commit.note.get(COMPARED, "")) for commit in writer.space.commits())
    return next((one for one in said if one.startswith(f"vLLM {vllm_version()}: ")), "")


def _compared(
    attention: VllmAttention,
    located: Located,
    teacher: TeacherSettings,
    identity: ModelIdentity,
    settings: AttentionSettings,
    progress: Progress,
) -> str:
    """Compare one text, and say with what and how far it is; raises `ModelError` where that is too far."""
    (found,) = attention.of(["compared"], [located], compare=True)
    apart, than = attention.apart, "the formula on the engine's own queries and keys"
    _require_near(apart, than, teacher, located)
    if reason := why_not_eager(identity, teacher, settings):
        progress.note(f"attention: compared with the formula alone: {reason}")
    else:
        on_cpu = replace(teacher, device="cpu", device_map=None)
        beside = load_whole_teacher(identity.path, identity.hub_revision, on_cpu)
        expected = eager_attention(beside, located)
        if expected is not None:
            apart, than = distance(found, expected, located), "transformers' eager attention"
            _require_near(apart, than, teacher, located)
    said = f"vLLM {vllm_version()}: {apart:.1e} from {than} on {len(located.ids)} tokens"
    log.info("attention: %s; %s", layers_by_way(attention.ways), said)
    return said


def _require_near(apart: float, than: str, teacher: TeacherSettings, located: Located) -> None:
    if not apart <= TOLERANCE[teacher.dtype]:
        raise ModelError(
            f"attention.engine: vllm's attention differs from {than} by {apart:.1%} on a text of {len(located.ids)} "
            f"tokens, more than {teacher.dtype} explains; nothing was written. Use attention.engine: transformers"
        )


def why_not_eager(identity: ModelIdentity, teacher: TeacherSettings, settings: AttentionSettings) -> str | None:
    """Why transformers' eager attention is no comparison, or not to be had beside the engine; None where it is."""
    if telling := telling_arguments(settings):
        return f"attention.engine_arguments make another model of the teacher ({', '.join(sorted(telling))})"
    config = AutoConfig.from_pretrained(
        identity.path, revision=identity.hub_revision, trust_remote_code=teacher.trust_remote_code
    )
    if getattr(config, "quantization_config", None) is not None:
        return "the checkpoint is quantised, by other kernels there"
    size = model_size(identity)
    if size is None:
        return "its configuration does not say how large it is"
    needed = size.parameters * BYTES[teacher.dtype]
    free = psutil.virtual_memory().available
    if 1.25 * needed > free:
        return f"it would take {needed / 1e9:,.1f} GB beside the engine, and {free / 1e9:,.1f} are free"
    return None


def longest_of(identity: ModelIdentity, teacher: TeacherSettings, most: int) -> int:
    """Most tokens of a text, `most` at most: one less than the teacher has positions, for vLLM adds a token."""
    config = AutoConfig.from_pretrained(
        identity.path, revision=identity.hub_revision, trust_remote_code=teacher.trust_remote_code
    )
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return min(most, int(positions) - 1) if positions else most


def _chunks(ordered: Sequence[str], lengths: Mapping[str, int]) -> Iterator[list[str]]:
    """Neighbours in length, about `CHUNK_TOKENS` tokens at a time."""
    chunk: list[str] = []
    tokens = 0
    for key in ordered:
        if chunk and tokens + lengths[key] > CHUNK_TOKENS:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(key)
        tokens += lengths[key]
    if chunk:
        yield chunk
