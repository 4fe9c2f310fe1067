"""A timed sample of one stage, in a process of its own as a stage has it: counts, time, bytes and memory of it all.

In: the shadow of a run (`pipeline.costs.shadow`), in which earlier samples have left what they computed, and how many
students the real run has to make. Out: `StageSample`. Where questions were not asked yet, the records that they will
give are reckoned from those that were, and it says so.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cache.spaces import Space
from data.errors import MissingRecordsError
from pipeline.run.inputs import Inputs
from pipeline.run.plan import StageName
from pipeline.run.teacher import AttentionStage, RationaleStage
from pipeline.run.usage import Usage
from pipeline.run.work import Run, open_stages
from stages.runtime.progress import Progress

if TYPE_CHECKING:
    from stages.sampling import Sample, Times


@dataclass(frozen=True, kw_only=True)
class StageSample:
    """What a stage will take by a sample; memory is the sample's peak and what the whole holds beyond it."""

    units: int
    sampled: int
    unit: str
    seconds: float
    cpu_seconds: float
    once_seconds: float
    bytes: int
    bytes_meanwhile: int
    peak_bytes: int
    peak_gpu_bytes: int
    assumptions: tuple[str, ...]


def sample_stage(run: Run, name: StageName, *, units: int, seconds: float, progress: Progress) -> StageSample | None:
    """Sample the stage `name` of a shadow; of students, `units` are to be made. `seconds` bound what is repeated.

    None where earlier stages have given nothing that this one could work on; the progress says so.
    """
    from pipeline.costs.student_samples import sample_evaluation, sample_training

    work: Mapping[StageName, Callable[[Job], Sample]] = {
        "rationales": _sample_rationales,
        "attention": _sample_attention,
        "train": sample_training,
        "evaluate": sample_evaluation,
    }
    job = Job(run=run, inputs=Inputs(run.config), units=units, seconds=seconds, progress=progress)
    with Usage() as usage:
        try:
            sample = work[name](job)
        except MissingRecordsError as error:  # what is known without a sample can still be said
            progress.note(f"{name}: no sample, {error}")
            return None
        used = usage.so_far()
    return StageSample(
        units=sample.units,
        sampled=sample.sampled,
        unit=sample.unit,
        seconds=sample.seconds,
        cpu_seconds=sample.cpu_seconds,
        once_seconds=sample.once_seconds,
        bytes=sample.bytes,
        bytes_meanwhile=sample.bytes_meanwhile,
        peak_bytes=used.peak_bytes + sample.further_memory,
        peak_gpu_bytes=used.peak_gpu_bytes,
        assumptions=sample.assumptions,
    )


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be sampled."""

    run: Run
    inputs: Inputs
    units: int
    seconds: float
    progress: Progress

    def teacher_stages(self) -> tuple[RationaleStage, AttentionStage]:
        """The two stages of the teacher as the shadow has them now."""
        stages = open_stages(self.run, self.inputs)
        rationales, attention = stages["rationales"], stages["attention"]
        assert isinstance(rationales, RationaleStage) and isinstance(attention, AttentionStage)
        return rationales, attention


def _plus(sample: "Sample", times: "Times") -> "Sample":
    """The sample with something that happens once."""
    return replace(
        sample,
        seconds=sample.seconds + float(times[0]),
        cpu_seconds=sample.cpu_seconds + float(times[1]),
        once_seconds=sample.once_seconds + float(times[0]),
    )


def now() -> "Times":
    """Seconds by the clock and of processors; without torch, for the time that its import takes is to be measured."""
    return np.array([time.monotonic(), time.process_time()])


def _sample_rationales(job: Job) -> "Sample":
    rationales, _ = job.teacher_stages()
    config = job.run.config
    rationales.plan()
    began = now()
    from cache.rationales import RationaleStore
    from stages.sampling import sample_rationales

    imports = now() - began
    sample = sample_rationales(
        rationales.questions,
        RationaleStore(Space.open_or_create(config.store, "rationales", rationales.slug, rationales.spec)),
        config.teacher,
        config.rationales,
        identity=job.inputs.teacher,
        seconds=job.seconds,
        progress=job.progress,
    )
    return _plus(sample, imports)


def _sample_attention(job: Job) -> "Sample":
    _, attention = job.teacher_stages()
    config = job.run.config
    missing = attention.missing
    expected, assumptions = expected_records(attention)
    if not missing:
        raise MissingRecordsError("not one record is there whose attention is missing")
    began = now()
    from cache.writer import AttentionWriter
    from stages.sampling import sample_attention

    imports = now() - began
    shards = 1 if job.run.shard is None else job.run.shard.count
    sample = sample_attention(
        [example.marked for example in missing],
        AttentionWriter(Space.open_or_create(config.store, "attention", attention.slug, attention.spec)),
        config.teacher,
        config.attention,
        identity=job.inputs.teacher,
        total=len(missing) + round(expected / shards),
        seconds=job.seconds,
        progress=job.progress,
    )
    return replace(_plus(sample, imports), assumptions=(*assumptions, *sample.assumptions))


def expected_records(attention: AttentionStage) -> tuple[float, tuple[str, ...]]:
    """How many records of the run are still to come from questions not asked yet, and on what assumption."""
    rationales = attention.rationales
    plan = rationales.plan()
    if not plan.to_do:
        return 0.0, ()
    if not plan.done:
        return float(plan.to_do), (f"each of {plan.to_do:,} questions gives a record",)
    most = float(rationales.samples)
    share = min(most, len(attention.selection.examples) / plan.done) if rationales.rationales else 0.0
    give = f"{share:.0%} of {plan.to_do:,} questions give a record"
    if most > 1:
        give = f"each of {plan.to_do:,} questions gives {share:.2g} records"
    return share * plan.to_do, (f"{give}, as of the {plan.done:,} asked so far",)
