"""What the work that is left would cost: records, bytes on disk, peak memory and time of each stage that has some.

In: a run, and what executions of the same space, teacher and student have taken, in this run or any beside it. Out: for
each stage its plan and a `Cost`, every figure with where it comes from. Best are executions at the same pace, of which
loading is told apart from what grows with the work: `molsaki run CONFIG --limit N` makes some. Bytes also follow from
the texts and from what is stored. Before any of these, bytes and memory are stated as rough estimates, from the files
of the models and rules of thumb that stand here, and time is unknown.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from cache.spaces import Space
from cache.student_attention import LOOKED_AT
from data.errors import MolsakiError
from data.prompts import predict_target
from pipeline.console.tables import binary_size
from pipeline.run.inputs import Split
from pipeline.run.plan import STAGE_ONE, Stage, StageName, StagePlan, total_plan
from pipeline.run.points import PointRun, PointStages, Run, all_work
from pipeline.run.provenance import StageRecord, executions
from pipeline.run.teacher import AttentionStage, RationaleStage
from stages.attention.select import Example
from stages.models.identity import TOKENIZER, ModelIdentity
from stages.models.size import ModelSize, PartSizes, commit_bytes, model_folder, model_size, part_sizes
from stages.soft_labels.spec import LabelBytes, soft_label_bytes

Source = Literal["past", "files", "rough", "unknown"]
"""Measured in executions before; told from files and texts; a rule of thumb; not known."""

LIBRARIES = 700 << 20
"""Resident memory of a process that has loaded torch and transformers, and nothing else."""
VLLM = 2 << 30
"""vLLM beyond weights and libraries on a CPU: a second process, and 1 GiB for keys and values."""
ATTEMPT_BYTES, PIECE_BYTES = 200, 5_000
"""An attempt at a question in a store, compressed, and what each commit of them adds."""
DEFAULT_PARTS = PartSizes(ratio=0.6, beside=450, part=13_000)
"""Attention where none is stored: float16 in 0.6 of its bytes (docs/log.md), texts and spans, metadata."""
CHARACTERS_A_TOKEN = 3.5
LOGITS_AT_A_TIME = 4 * 2**25
"""Logits of the teacher in memory, and what is made of them."""
COMPRESSED, EVALUATION_BYTES = 0.3, 1_500
"""What is left of the characters of answers in a Parquet file, and what a file has beside them."""
LIKELIHOOD_BYTES, LIKELIHOOD_ROW_BYTES, LIKELIHOOD_COMPRESSED = 3_500, 13, 0.35
"""A file of log-probabilities without its rows, a row without its text, and what is left of a text's characters."""
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


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A stage: what is done and to do, and what that costs; None where nothing is left."""

    plan: StagePlan
    cost: Cost | None


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """Work of one stage that is done in one go: the students of a point, or what points share of stage one."""

    plan: StagePlan
    stages: PointStages
    records: Sequence[StageRecord]

    @property
    def point(self) -> PointRun:
        return self.stages.point

    @property
    def unknown(self) -> Cost:
        """What is known of its cost before anything was looked at."""
        return Cost(stage=self.plan.name, units=self.plan.to_do, unit=self.plan.unit)


def estimates(
    run: Run,
    points: Sequence[PointStages],
    names: Sequence[StageName],
    seeds: Sequence[int] = (),
    split: Split = "test",
) -> list[Estimate]:
    """Each stage's plan, that of all points together, with what it would cost by the best that is known."""
    found = []
    for name in names:
        if pieces := [_piece(run, *work) for work in all_work(run, points, name, seeds, split)]:
            plan = total_plan([piece.plan for piece in pieces])
            left = [piece for piece in pieces if not piece.plan.finished]
            found.append(Estimate(plan=plan, cost=_together([_cost(piece) for piece in left])))
    return found


def _piece(run: Run, stage: Stage, needing: Sequence[PointStages]) -> _Piece:
    plan = stage.plan()
    records = [] if plan.finished else executions(run.folder.parent, stage.name, stage.pace())
    return _Piece(plan=plan, stages=needing[0], records=records)


def _together(costs: Sequence[Cost]) -> Cost | None:
    """The costs of one stage's pieces as one: bytes and seconds add up, memory is that of the largest.

    Where nothing is known of the seconds of some, they are taken to be those of the others, unit by unit.
    """
    if not costs:
        return None
    if len(costs) == 1:
        return costs[0]
    units = [cost.units for cost in costs]
    return replace(
        costs[0],
        units=sum(units),
        bytes=_added([cost.bytes for cost in costs], units),
        bytes_meanwhile=_largest([cost.bytes_meanwhile for cost in costs]),
        peak_bytes=_largest([cost.peak_bytes for cost in costs]),
        peak_gpu_bytes=_largest([cost.peak_gpu_bytes for cost in costs]),
        seconds=_added([cost.seconds for cost in costs], units),
        cpu_seconds=_added([cost.cpu_seconds for cost in costs], units),
        assumptions=tuple(dict.fromkeys(line for cost in costs for line in cost.assumptions)),
    )


def _added(figures: Sequence[Figure], units: Sequence[int]) -> Figure:
    known = [(figure, count) for figure, count in zip(figures, units, strict=True) if figure.value is not None]
    if not known or not (counted := sum(count for _, count in known)):
        return UNKNOWN
    total = sum(figure.value or 0.0 for figure, _ in known) * sum(units) / counted
    return replace(known[0][0], value=total)


def _largest(figures: Sequence[Figure]) -> Figure:
    return max(figures, key=lambda figure: figure.value or 0.0)


def _cost(piece: _Piece) -> Cost:
    rough = _ROUGH[piece.plan.name](piece)
    return _experienced(rough, piece) if piece.records else rough


def _experienced(rough: Cost, piece: _Piece) -> Cost:
    """Replace what earlier executions of the same work know better."""
    records = piece.records
    units = _done(piece)
    how = f"{len(records):,} earlier execution{'s' * (len(records) > 1)} of {units:,} {piece.plan.unit}"

    def figure(value: float) -> Figure:
        return Figure(value=value, source="past", how=how) if value else UNKNOWN

    peak = figure(max(record.peak_bytes for record in records))
    seconds, grown = _seconds(rough.units, piece), _grown(rough, piece)
    processors = sum(record.cpu_seconds for record in records) / max(sum(record.seconds for record in records), 1e-9)
    return replace(
        rough,
        bytes=figure(grown) if grown else rough.bytes,
        peak_bytes=peak if peak.value else rough.peak_bytes,
        peak_gpu_bytes=figure(max(record.peak_gpu_bytes for record in records)),
        seconds=figure(seconds),
        cpu_seconds=figure(seconds * processors),
    )


def _seconds(units: int, piece: _Piece) -> float:
    """Loading and closing once, and what grows with the work: with optimizer steps, what is written, or units.

    Each student is loaded and saved by itself, so that closing counts apart for stages of the teacher only.
    """
    records = piece.records
    start = sum(record.start_seconds for record in records) / len(records)
    growing, done = sum(record.seconds - record.start_seconds for record in records), _done(piece)
    if written := sum(record.written for record in records):  # a student of few records runs on
        likelihoods = sum(record.likelihood_seconds for record in records)
        answering = (growing - likelihoods) * (_written_to_do(piece) or written) / written
        return start + answering + units * likelihoods / done
    if piece.plan.name in STAGE_ONE:
        ends = sum(record.end_seconds for record in records)
        return start + ends / len(records) + units * (growing - ends) / done
    if not (steps := _steps_to_do(piece)) or not (counted := sum(record.counted for record in records)):
        return start + units * growing / done
    stepping = sum(record.counted_seconds for record in records)
    return start + units * (growing - stepping) / done + steps * stepping / counted


def _grown(rough: Cost, piece: _Piece) -> float:
    """Bytes of students: weights, and what is kept of records, which grows with the steps but for where they looked."""
    counted, steps = sum(record.counted for record in piece.records), _steps_to_do(piece)
    examples, model = piece.stages.all_attention.selection.examples, _student_size(piece)
    if not counted or not steps or not examples or model is None or not rough.bytes.value:
        return 0.0
    left, done, times = piece.plan.to_do, _done(piece), steps / counted
    records = len(examples) + _expected_records(piece)[0]
    cells = sum(len(each.marked.step_spans) * len(each.marked.critical_spans) for each in examples) / len(examples)
    looks = 2 * DTYPE_BYTES["float16"] * model.layers * cells  # of a record, before and after
    beside = sum(record.bytes_grown for record in piece.records) - rough.bytes.value / left * done
    beside = max(0.0, beside - looks * min(records / times, LOOKED_AT) * done)
    return rough.bytes.value + beside * times + looks * min(records, LOOKED_AT) * left


def _done(piece: _Piece) -> int:
    return sum(record.units for record in piece.records)


def _written_to_do(piece: _Piece) -> float:
    """Characters that students have still to write, taken to be as many as they learn from; 0 where none are known."""
    examples, prompts = piece.stages.all_attention.selection.examples, piece.point.config.evaluation.prompts
    if piece.plan.name != "evaluate" or not examples:
        return 0.0
    lengths = {
        "predict": sum(len(predict_target(example.rationale.question)) for example in examples) / len(examples),
        "explain": sum(len(example.marked.rationale) for example in examples) / len(examples),
    }
    questions = piece.plan.to_do * len(piece.point.inputs.labelled("test"))
    return questions * sum(lengths[prompt] for prompt in prompts)


def _likelihood_bytes(piece: _Piece) -> float:
    """Size of the files of log-probabilities: numbers do not compress, texts do."""
    settings, inputs = piece.point.config.evaluation, piece.point.inputs
    if not settings.likelihood:
        return 0.0
    questions = inputs.labelled("test")
    texts = {
        "predict": [predict_target(question) for question in questions],
        "explain": [text for text in inputs.references("test").texts if text is not None],
    }
    asked = [text for prompt in settings.prompts for text in texts[prompt]]
    each = LIKELIHOOD_BYTES + sum(LIKELIHOOD_ROW_BYTES + LIKELIHOOD_COMPRESSED * len(text) for text in asked)
    return piece.plan.to_do * each


def _steps_to_do(piece: _Piece) -> int:
    """Optimizer steps of the students that are left; 0 for other stages."""
    if piece.plan.name != "train":
        return 0
    training, examples = piece.point.config.training, piece.stages.all_attention.selection.examples
    batches = math.ceil((len(examples) + _expected_records(piece)[0]) / training.batch_size)
    return piece.plan.to_do * math.ceil(training.epochs * math.ceil(batches / training.gradient_accumulation))


def _expected_records(piece: _Piece) -> tuple[float, tuple[str, ...]]:
    """How many records of the run are still to come from questions not asked yet, and on what assumption."""
    attention, config = piece.stages.all_attention, piece.point.config
    most = max(source.rationales.samples for source in (config, *config.sources()))
    plan = attention.rationales.plan()
    if not plan.to_do:
        return 0.0, ()
    if not plan.done:
        return float(plan.to_do), (f"each of {plan.to_do:,} questions gives a record",)
    share = min(most, len(attention.selection.examples) / plan.done)
    give = f"{share:.0%} of {plan.to_do:,} questions give a record"
    if most > 1:
        give = f"each of {plan.to_do:,} questions gives {share:.2g} records"
    return share * plan.to_do, (f"{give}, as of the {plan.done:,} asked so far",)


def _rough_rationales(piece: _Piece) -> Cost:
    plan, settings = piece.plan, piece.point.config.rationales
    stored = _stored_attempts(piece.stages.rationales)
    attempts = plan.to_do * (settings.samples + settings.keywords)
    value = (stored or ATTEMPT_BYTES) * attempts + PIECE_BYTES * math.ceil(attempts / settings.piece)
    size = Figure(value=value, source="rough", how="none is stored yet")
    if stored is not None:
        size = Figure(value=value, source="files", how="the size of those that are stored")
    elsewhere = settings.engine in {"file", "openai"}
    teacher, dtype = piece.point.inputs.teacher, piece.point.config.teacher.dtype
    memory = UNKNOWN if elsewhere else _answering_memory(_size(teacher), dtype, settings.engine)
    return replace(piece.unknown, bytes=size, peak_bytes=memory)


def _stored_attempts(stage: RationaleStage) -> float | None:
    """Bytes a stored attempt takes without what each commit adds; None where none is stored."""
    if not stage.begun:
        return None
    commits = [commit for commit in Space.open(stage.path).commits() if commit.part is not None]
    records = sum(commit.counts["records"] for commit in commits)
    beside = PIECE_BYTES * len(commits)
    return max(0, sum(commit_bytes(stage.path, commit) for commit in commits) - beside) / records if records else None


def _rough_attention(piece: _Piece) -> Cost:
    plan, settings, teacher = piece.plan, piece.point.config.attention, piece.point.inputs.teacher
    more, assumptions = _expected_records(piece)
    units = plan.to_do + round(more if plan.shard is None else more / plan.shard.count)
    dtype = DTYPE_BYTES[piece.point.config.teacher.dtype]

    def passing(model: ModelSize) -> float:
        return dtype * model.parameters + 12 * dtype * settings.batch_tokens * model.width

    return replace(
        piece.unknown,
        units=units,
        bytes=_attention_bytes(piece.stages.attention, units, settings.piece, _size(teacher)),
        peak_bytes=_memory(_size(teacher), passing),
        assumptions=assumptions,
    )


def _rough_soft_labels(piece: _Piece) -> Cost:
    plan, settings, stage = piece.plan, piece.point.config.soft_labels, piece.stages.soft_labels
    more, assumptions = _expected_records(piece)
    units = plan.to_do + round(more if plan.shard is None else more / plan.shard.count)
    model, dtype = _size(piece.point.inputs.teacher), DTYPE_BYTES[piece.point.config.teacher.dtype]

    def passing(model: ModelSize) -> float:
        weights, activations = model.parameters, 12 * settings.batch_tokens * model.width
        return dtype * (weights + activations) + 4 * LOGITS_AT_A_TIME

    size, taken = UNKNOWN, _label_bytes(piece)
    if taken is not None:
        layout = f"{stage.settings.layout}, about {taken.row:,.0f} bytes a target token"
        assumptions += (f"{layout}, the head {binary_size(taken.head)} once" if taken.head else layout,)
        if stage.selection.examples:
            written = _target_tokens(stage.selection.examples)
            head = 0 if stage.recorded else taken.head
            how = f"{written:.0f} target tokens a record, {assumptions[-1]}"
            size = Figure(value=units * written * taken.row + head, source="rough", how=how)
    return replace(
        piece.unknown,
        units=units,
        bytes=size,
        peak_bytes=_memory(model, passing),
        assumptions=assumptions,
    )


def _label_bytes(piece: _Piece) -> LabelBytes | None:
    """What the soft labels of a point take; None where it has none, or where the teacher's size is not known."""
    model, dtype = _size(piece.point.inputs.teacher), DTYPE_BYTES[piece.point.config.teacher.dtype]
    if model is None or ("soft-labels" not in piece.point.stages and piece.plan.name != "soft-labels"):
        return None
    return soft_label_bytes(piece.stages.all_soft_labels.settings, model.width, model.vocabulary, dtype)


def _target_tokens(examples: Sequence[Example]) -> float:
    """Tokens of a record that a student has to write, its end among them."""
    return sum(len(each.rationale.text) for each in examples) / len(examples) / CHARACTERS_A_TOKEN + 1


def _attention_bytes(stage: AttentionStage, units: int, piece: int, model: ModelSize | None) -> Figure:
    """Cells follow from the marked texts; the compression is that of the stored parts."""
    known = stage.missing or stage.selection.examples
    if not known or model is None:
        return UNKNOWN
    stored = part_sizes(stage.path, Space.open(stage.path).commits()) if stage.begun else None
    sizes = stored or DEFAULT_PARTS
    cells = sum(len(each.marked.step_spans) * len(each.marked.critical_spans) for each in known) / len(known)
    value = sizes.of(cells * model.layers * units, units, math.ceil(units / piece))
    if stored is None:
        return Figure(value=value, source="rough", how=f"cells of the texts, at {DEFAULT_PARTS.ratio:.0%} of float16")
    return Figure(value=value, source="files", how=f"cells of the texts, at {stored.ratio:.0%} as in stored parts")


def _rough_training(piece: _Piece) -> Cost:
    config, student = piece.point.config, piece.point.inputs.student
    _, assumptions = _expected_records(piece)
    model, examples = _student_size(piece), piece.stages.all_attention.selection.examples
    labels = _label_bytes(piece)
    if labels is not None and examples:
        mapped = binary_size(len(examples) * _target_tokens(examples) * labels.mapped)
        assumptions += (f"~{mapped} for a map of the soft labels, once for all students",)
    read = max((len(example.marked.text) for example in examples), default=0)
    written = max((len(example.rationale.text) for example in examples), default=0)
    tokens, targets = (
        config.training.batch_size * min(characters / CHARACTERS_A_TOKEN, config.student.max_length)
        for characters in (read, written)
    )

    def passing(model: ModelSize) -> float:
        head = 4 * targets * model.vocabulary
        of_teacher = 0 if labels is None else labels.head
        return 16 * model.parameters + 4 * (20 * tokens * model.layers * model.width + head) + of_teacher

    if model is None:
        return replace(piece.unknown, assumptions=assumptions)
    how = f"{model.parameters:,} weights in float32, counted from {model.counted}"
    weights = 4 * model.parameters
    return replace(
        piece.unknown,
        bytes=Figure(value=piece.plan.to_do * (weights + _tokenizer_bytes(student)), source="rough", how=how),
        bytes_meanwhile=Figure(value=3 * weights, source="rough", how=f"{how}, and two moments of each"),
        peak_bytes=_memory(model, passing),
        assumptions=assumptions,
    )


def _rough_evaluation(piece: _Piece) -> Cost:
    settings, inputs = piece.point.config.evaluation, piece.point.inputs
    answers = piece.plan.to_do * len(inputs.labelled("test")) * len(settings.prompts)
    characters = _written_to_do(piece) or 100 * answers
    how = f"{characters / max(answers, 1):.0f} characters an answer, compressed"
    value = COMPRESSED * characters + EVALUATION_BYTES * piece.plan.to_do + _likelihood_bytes(piece)
    size = Figure(value=value, source="rough", how=how)
    memory = _answering_memory(_student_size(piece), piece.point.config.training.dtype, settings.engine)
    return replace(piece.unknown, bytes=size, peak_bytes=memory)


_ROUGH: Mapping[StageName, Callable[[_Piece], Cost]] = {
    "rationales": _rough_rationales,
    "attention": _rough_attention,
    "soft-labels": _rough_soft_labels,
    "train": _rough_training,
    "evaluate": _rough_evaluation,
}


def _student_size(piece: _Piece) -> ModelSize | None:
    return _size(piece.point.inputs.student, piece.point.config.student.layers)


def _size(identity: ModelIdentity, kept: int | None = None) -> ModelSize | None:
    """Size of a model, None where it cannot be told; the stage itself will say what is wrong with the model."""
    try:
        return model_size(identity, kept)
    except MolsakiError:
        return None


def _answering_memory(model: ModelSize | None, dtype: str, engine: str) -> Figure:
    further = VLLM if engine in {"vllm", "ray"} else 0
    return _memory(model, lambda known: DTYPE_BYTES[dtype] * known.parameters + further)


def _memory(model: ModelSize | None, taken: Callable[[ModelSize], float]) -> Figure:
    if model is None:
        return UNKNOWN
    how = f"{model.parameters:,} weights, counted from {model.counted}, and rules of thumb"
    return Figure(value=taken(model) + LIBRARIES, source="rough", how=how)


def _tokenizer_bytes(identity: ModelIdentity) -> int:
    folder = model_folder(identity)
    return sum(path.stat().st_size for pattern in TOKENIZER for path in folder.glob(pattern))
