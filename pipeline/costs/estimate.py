"""What the work that is left would cost: records, bytes on disk, peak memory and time of each stage that has some.

In: a run, its plans, its past, and samples where there are any. Out: a `Cost` for each plan, every figure with where
it comes from. Best is a timed sample; then an earlier execution into the same space; bytes also follow from the texts
and from what is stored. Before any of these, bytes and memory are stated as rough estimates, from the files of the
models and rules of thumb that stand here, and time is unknown.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from cache.spaces import Space
from data.errors import MolsakiError
from pipeline.costs.sampling import StageSample, expected_records
from pipeline.costs.shadow import shadow_of
from pipeline.run.inputs import Inputs
from pipeline.run.plan import Stage, StageName, StagePlan
from pipeline.run.provenance import Provenance, StageRecord
from pipeline.run.supervise import ForwardingStop, stage_command
from pipeline.run.teacher import AttentionStage, RationaleStage
from pipeline.run.work import Run, open_stages, require_success
from stages.models.identity import TOKENIZER, ModelIdentity
from stages.models.size import ModelSize, PartSizes, commit_bytes, model_size, part_sizes

Source = Literal["sample", "past", "files", "rough", "unknown"]
"""Measured by a sample, or in an earlier execution; told from files and texts; a rule of thumb; not known."""

LIBRARIES = 700 << 20
"""Resident memory of a process that has loaded torch and transformers, and nothing else."""
VLLM = 2 << 30
"""vLLM beyond weights and libraries on a CPU: a second process, and 1 GiB for keys and values."""
ATTEMPT_BYTES, PIECE_BYTES = 200, 5_000
"""An attempt at a question in a store, compressed, and what each commit of them adds."""
DEFAULT_PARTS = PartSizes(ratio=0.6, beside=450, part=13_000)
"""Attention where none is stored: float16 in 0.6 of its bytes (docs/log.md), texts and spans, metadata."""
CHARACTERS_A_TOKEN = 3.5
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number and where it comes from; None where nobody knows."""

    value: float | None = None
    source: Source = "unknown"
    how: str = ""


UNKNOWN = Figure()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one stage would take: `units` to do, bytes that stay and bytes in passing, memory, seconds.

    `peak_bytes` is resident memory of the stage's processes, `peak_gpu_bytes` what torch reserves on GPUs.
    """

    stage: StageName
    units: int
    unit: str
    bytes: Figure = UNKNOWN
    bytes_meanwhile: Figure = UNKNOWN
    peak_bytes: Figure = UNKNOWN
    peak_gpu_bytes: Figure = UNKNOWN
    seconds: Figure = UNKNOWN
    cpu_seconds: Figure = UNKNOWN
    assumptions: tuple[str, ...] = field(default=())


def costs(
    run: Run, plans: Sequence[StagePlan], inputs: Inputs, past: Provenance, samples: Mapping[StageName, StageSample]
) -> list[Cost | None]:
    """The cost of each plan, by the best that is known; None where there is nothing to do."""
    stages = open_stages(run, inputs)
    return [None if plan.finished else _cost(run, plan, stages, inputs, past, samples.get(plan.name)) for plan in plans]


def _cost(
    run: Run,
    plan: StagePlan,
    stages: Mapping[StageName, Stage],
    inputs: Inputs,
    past: Provenance,
    sample: StageSample | None,
) -> Cost:
    rough = _ROUGH[plan.name](run, plan, stages, inputs)
    if sample is not None:
        return _sampled(rough, plan, sample)
    records = [] if plan.waits_for else past.same_space(plan.name, stages[plan.name].fingerprints())
    return _experienced(rough, records) if records else rough


def _sampled(rough: Cost, plan: StagePlan, sample: StageSample) -> Cost:
    how = f"a sample of {sample.sampled:,} of {sample.units:,} {sample.unit}"

    def figure(value: float) -> Figure:
        return Figure(value=value, source="sample", how=how)

    return replace(
        rough,
        units=rough.units if plan.unit != sample.unit else sample.units,
        bytes=figure(sample.bytes),
        bytes_meanwhile=replace(figure(sample.bytes_meanwhile), how=f"{how}: weights and two moments of each")
        if sample.bytes_meanwhile
        else UNKNOWN,
        peak_bytes=figure(sample.peak_bytes),
        peak_gpu_bytes=figure(sample.peak_gpu_bytes) if sample.peak_gpu_bytes else UNKNOWN,
        seconds=figure(sample.seconds),
        cpu_seconds=figure(sample.cpu_seconds),
        assumptions=sample.assumptions,
    )


def _experienced(rough: Cost, records: Sequence[StageRecord]) -> Cost:
    """Replace what earlier executions of the same work know better."""
    units = sum(record.units for record in records)
    how = f"{len(records):,} earlier execution{'s' * (len(records) > 1)} of {units:,} {rough.unit}, start-up included"

    def figure(value: float) -> Figure:
        return Figure(value=value, source="past", how=how) if value else UNKNOWN

    peak = figure(max(record.peak_bytes for record in records))
    return replace(
        rough,
        peak_bytes=peak if peak.value else rough.peak_bytes,
        peak_gpu_bytes=figure(max(record.peak_gpu_bytes for record in records)),
        seconds=figure(rough.units * sum(record.seconds for record in records) / units),
        cpu_seconds=figure(rough.units * sum(record.cpu_seconds for record in records) / units),
    )


def take_samples(run: Run, plans: Sequence[StagePlan], *, seconds: float, quiet: bool) -> dict[StageName, StageSample]:
    """Sample every stage that has something to do, each in a process of its own, one after the other in one shadow.

    What one leaves there the next one works on, so that a run that has not begun is sampled from end to end. Raises
    `StageProcessError` where a sample fails (it has said why), `Interrupted` after a signal.
    """
    to_do = [plan for plan in plans if not plan.finished]
    trained = not any(plan.name == "train" for plan in to_do)
    samples: dict[StageName, StageSample] = {}
    if not to_do:
        return samples
    with ForwardingStop() as stop, shadow_of(run, with_students=trained) as shadow, TemporaryDirectory() as place:
        for plan in to_do:
            out = Path(place) / f"{plan.name}.json"
            arguments = [
                *(str(shadow.config_file), "--runs", str(shadow.folder.parent), "--stage", plan.name),
                *("--units", str(plan.to_do), "--seconds", str(seconds), "--out", str(out)),
                *(["--shard", str(plan.shard)] if plan.shard else []),
                *(["--quiet"] if quiet else []),
            ]
            code = stop.run(stage_command("sample-stage", arguments))
            stop.check("nothing, for samples are not kept")
            require_success(f"sample of {plan.name}", code)
            if (found := json.loads(out.read_text(encoding="utf-8"))) is not None:
                samples[plan.name] = StageSample(**{**found, "assumptions": tuple(found["assumptions"])})
    return samples


def _rough_rationales(run: Run, plan: StagePlan, stages: Mapping[StageName, Stage], inputs: Inputs) -> Cost:
    stage = stages["rationales"]
    assert isinstance(stage, RationaleStage)
    settings = run.config.rationales
    stored = _stored_attempts(stage)
    attempts = plan.to_do * (settings.samples + settings.keywords)
    pieces = math.ceil(attempts / settings.piece)
    if stored is None:
        size = Figure(value=ATTEMPT_BYTES * attempts + PIECE_BYTES * pieces, source="rough", how="none is stored yet")
    else:
        size = Figure(value=stored * attempts, source="files", how="the size of those that are stored")
    elsewhere = settings.engine in {"file", "openai"}
    model_bytes = _model_bytes(run.config.teacher.dtype)
    memory = UNKNOWN if elsewhere else _memory(inputs.teacher, model_bytes, _vllm(settings.engine))
    return Cost(stage="rationales", units=plan.to_do, unit=plan.unit, bytes=size, peak_bytes=memory)


def _stored_attempts(stage: RationaleStage) -> float | None:
    """Bytes a stored attempt takes with its share of the commits; None where none is stored."""
    if not stage.begun:
        return None
    commits = [commit for commit in Space.open(stage.path).commits() if commit.part is not None]
    records = sum(commit.counts["records"] for commit in commits)
    return sum(commit_bytes(stage.path, commit) for commit in commits) / records if records else None


def _rough_attention(run: Run, plan: StagePlan, stages: Mapping[StageName, Stage], inputs: Inputs) -> Cost:
    attention = stages["attention"]
    assert isinstance(attention, AttentionStage)
    settings = run.config.attention
    more, assumptions = expected_records(attention)
    if run.shard is not None:
        more /= run.shard.count
    units = plan.to_do + round(more)
    dtype = DTYPE_BYTES[run.config.teacher.dtype]

    def passing(model: ModelSize) -> float:
        return dtype * model.parameters + 12 * dtype * settings.batch_tokens * model.width

    return Cost(
        stage="attention",
        units=units,
        unit=plan.unit,
        bytes=_attention_bytes(attention, units, settings.piece, _size(inputs.teacher)),
        peak_bytes=_memory(inputs.teacher, passing),
        assumptions=assumptions,
    )


def _attention_bytes(stage: AttentionStage, units: int, piece: int, model: ModelSize | None) -> Figure:
    """Cells follow from the marked texts; the compression is that of the stored parts."""
    known = stage.missing or stage.selection.examples
    if not known or model is None:
        return UNKNOWN
    stored = part_sizes(stage.path, Space.open(stage.path).commits()) if stage.begun else None
    sizes = stored or DEFAULT_PARTS
    cells = sum(len(one.marked.step_spans) * len(one.marked.critical_spans) for one in known) / len(known)
    value = sizes.of(cells * model.layers * units, units, math.ceil(units / piece))
    if stored is None:
        return Figure(value=value, source="rough", how=f"cells of the texts, at {DEFAULT_PARTS.ratio:.0%} of float16")
    return Figure(value=value, source="files", how=f"cells of the texts, at {stored.ratio:.0%} as in stored parts")


def _rough_training(run: Run, plan: StagePlan, stages: Mapping[StageName, Stage], inputs: Inputs) -> Cost:
    attention = stages["attention"]
    assert isinstance(attention, AttentionStage)
    _, assumptions = expected_records(attention)
    model, training = _size(inputs.student), run.config.training
    longest = max((len(one.marked.text) for one in attention.selection.examples), default=0) / CHARACTERS_A_TOKEN
    tokens = training.batch_size * min(longest, run.config.student.max_length)

    def passing(model: ModelSize) -> float:
        return 16 * model.parameters + 4 * tokens * (20 * model.layers * model.width + 4 * model.vocabulary)

    if model is None:
        return Cost(stage="train", units=plan.to_do, unit=plan.unit, assumptions=assumptions)
    how = f"{model.parameters:,} weights in float32, counted from {model.counted}"
    weights = 4 * model.parameters
    return Cost(
        stage="train",
        units=plan.to_do,
        unit=plan.unit,
        bytes=Figure(value=plan.to_do * (weights + _tokenizer_bytes(inputs.student)), source="rough", how=how),
        bytes_meanwhile=Figure(value=3 * weights, source="rough", how=f"{how}, and two moments of each"),
        peak_bytes=_memory(inputs.student, passing),
        assumptions=assumptions,
    )


def _rough_evaluation(run: Run, plan: StagePlan, _stages: Mapping[StageName, Stage], inputs: Inputs) -> Cost:
    settings = run.config.evaluation
    rows = len(inputs.labelled("test")) * len(settings.prompts)
    size = Figure(value=plan.to_do * (5_000 + 30 * rows), source="rough", how="30 bytes an answer, compressed")
    memory = _memory(inputs.student, _model_bytes(run.config.training.dtype), _vllm(settings.engine))
    return Cost(stage="evaluate", units=plan.to_do, unit=plan.unit, bytes=size, peak_bytes=memory)


Rough = Callable[[Run, StagePlan, Mapping[StageName, Stage], Inputs], Cost]
_ROUGH: Mapping[StageName, Rough] = {
    "rationales": _rough_rationales,
    "attention": _rough_attention,
    "train": _rough_training,
    "evaluate": _rough_evaluation,
}


def _size(identity: ModelIdentity) -> ModelSize | None:
    """Size of a model, None where it cannot be told; the stage itself will say what is wrong with the model."""
    try:
        return model_size(identity)
    except MolsakiError:
        return None


def _memory(identity: ModelIdentity, taken: Callable[[ModelSize], float], further: int = 0) -> Figure:
    model = _size(identity)
    if model is None:
        return UNKNOWN
    how = f"{model.parameters:,} weights, counted from {model.counted}, and rules of thumb"
    return Figure(value=taken(model) + LIBRARIES + further, source="rough", how=how)


def _model_bytes(dtype: str) -> Callable[[ModelSize], float]:
    return lambda model: DTYPE_BYTES[dtype] * model.parameters


def _vllm(engine: str) -> int:
    return VLLM if engine in {"vllm", "ray"} else 0


def _tokenizer_bytes(identity: ModelIdentity) -> int:
    from stages.models.size import model_folder

    folder = model_folder(identity)
    return sum(path.stat().st_size for pattern in TOKENIZER for path in folder.glob(pattern))
