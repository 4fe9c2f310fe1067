"""Stage one as the command line runs it: rationales, then attention, both into stores that experiments share.

In: the inputs of a run. Out: records in `<store>/rationales/…` and `<store>/attention/…`. Planning compares what the
stores hold with what the run needs; nothing is created and no model is loaded until `execute`. Soft labels are made of
the same records (`pipeline.run.soft_labels`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np

from cache.fingerprints import Spec, fingerprint
from cache.keys import KeyIndex, KeyRows, are_among, hex_keys, key_rows
from cache.nearest import neighbour
from cache.rationales import RationaleStore
from cache.reader import AttentionStore, recorded_rows
from cache.spaces import Space, dropped_records, is_space, space_path
from data.errors import MissingRecordsError
from data.records import Question, Rationale
from pipeline.console.exits import folder_of, require_writable
from pipeline.run.inputs import Inputs
from pipeline.run.plan import StageName, StagePlan, reasons
from pipeline.run.provenance import commit_note
from stages.attention.select import Example, Selection, select_examples
from stages.attention.selected import (
    Kept,
    Place,
    chosen,
    keep_selection,
    keys_of,
    marking_spec,
    read_selection,
    which,
)
from stages.attention.spec import attention_slug, attention_spec
from stages.rationales.spec import rationale_slug, rationale_spec
from stages.rationales.write import (
    RationalePlan,
    kept_rationales,
    own_questions,
    plan_rationales,
    standing_spec,
    write_rationales,
)
from stages.runtime.imports import importing
from stages.runtime.progress import Progress, StopSignal
from stages.runtime.shard import Shard
from stages.settings import AttentionSettings, RationaleSettings, SoftLabelSettings


class Rationales(Protocol):
    """What an attention stage asks of the rationales of a run, which one source has or several."""

    @property
    def name(self) -> StageName:
        """The command that makes them."""

    @property
    def begun(self) -> bool:
        """Whether something is stored."""

    @property
    def space(self) -> Space:
        """The space beside which records are kept, which has to be there."""

    @property
    def standing(self) -> Spec:
        """What it depends on, beside questions and the attempts of `space`, which rationales there are."""

    @property
    def rationales(self) -> tuple[Rationale, ...]:
        """The kept rationales, as far as they are there."""

    @property
    def fingerprint(self) -> str:
        """What they are known by."""

    @property
    def by_source(self) -> tuple[str, ...]:
        """The same of each source, the run's own first."""

    def plan(self) -> StagePlan:
        """What is there and what is missing."""

    def forget(self) -> None:
        """Let go of questions and rationales."""


if TYPE_CHECKING:
    from pipeline.config.schema import Config
    from stages.attention.write import Beside
    from stages.engines.contract import Engine
    from stages.engines.kinds.vllm import VllmEngine
    from stages.rationales.write import After


class StageWithSpace:
    """What stages of the teacher share: results go to one space of a store, which follows from the configuration.

    With `shard`, a stage does that share of its questions or records only.
    """

    name: Literal["rationales", "attention", "soft-labels"]
    written, likelihood_seconds = 0, 0.0
    _spec_of: ClassVar[Callable[..., Spec]]
    _slug_of: ClassVar[Callable[..., str]]

    def __init__(self, inputs: Inputs, shard: Shard | None = None) -> None:
        self._inputs = inputs
        self._shard = shard

    @property
    def _settings(self) -> RationaleSettings | AttentionSettings | SoftLabelSettings:
        raise NotImplementedError

    @cached_property
    def spec(self) -> Spec:
        """What the results depend on."""
        return self._spec_of(self._inputs.teacher, self._inputs.config.teacher, self._settings)

    @property
    def slug(self) -> str:
        """Readable part of the space's name."""
        return self._slug_of(self._inputs.teacher, self._settings)

    def plan(self) -> StagePlan:
        """Count what is there and what is missing, once."""
        return self._plan

    @cached_property
    def _plan(self) -> StagePlan:
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the spec."""
        return fingerprint(self.spec)

    @property
    def path(self) -> Path:
        """The space that the results lie in."""
        return space_path(self._inputs.config.store, self.name, self.slug, self.spec)

    @property
    def begun(self) -> bool:
        """Whether the space is there; a job beside this one may just be making it."""
        return is_space(self.path)

    def fingerprints(self) -> Mapping[str, str]:
        """Name of the space."""
        return {self.name: self.fingerprint}

    def pace(self) -> str:
        """The space, and what fills it."""
        return fingerprint({"space": self.fingerprint, **self._speed()})

    def _speed(self) -> Spec:
        """What makes the work faster or slower and leaves its results alone."""
        raise NotImplementedError

    def _open(self) -> Space:
        return Space.open(self.path, expected=self.spec)

    @cached_property
    def _neighbour(self) -> str:
        """What is said where nothing is stored for this configuration, and something is for a similar one."""
        found = neighbour(self._inputs.config.store, self.name, self.slug, self.spec)
        return "" if found is None else found.line()

    def _open_or_create(self, progress: Progress) -> Space:
        if self._neighbour:
            progress.note(self._neighbour)
        store = self._inputs.config.store
        with folder_of(f"store: {store}", "name another folder by the key store"):
            space = Space.open_or_create(store, self.name, self.slug, self.spec)
            require_writable(space.path)  # before the teacher works for nothing
        return space


class RationaleStage(StageWithSpace):
    """Lets the teacher explain the training questions; with `shard` its questions only.

    What `reading` opens, as it is then, the engine that writes them records too, piece by piece, of what was kept.
    """

    name = "rationales"

    def __init__(self, inputs: Inputs, shard: Shard | None = None) -> None:
        super().__init__(inputs, shard)
        self.reading: list[Callable[[], AttentionStage]] = []

    _spec_of, _slug_of = staticmethod(rationale_spec), staticmethod(rationale_slug)

    @property
    def _settings(self) -> RationaleSettings:
        return self._inputs.config.rationales

    def _speed(self) -> Spec:
        settings = self._settings
        return {
            "engine": settings.engine,
            "arguments": dict(settings.engine_arguments),
            "samples": settings.samples,
            "device": self._inputs.config.teacher.device,
        }

    @cached_property
    def questions(self) -> Sequence[Question]:
        """Those of the run's questions that are this process's own: all of them, or a shard."""
        everything = self._inputs.questions("train")
        return everything if self._shard is None else own_questions(everything, self._settings, self._shard)

    @cached_property
    def rationales(self) -> tuple[Rationale, ...]:
        """The kept rationales of these questions, as far as they are there."""
        return tuple(kept_rationales(self.questions, self.open(), self._settings)) if self.begun else ()

    @cached_property
    def _plan(self) -> StagePlan:
        """Count the questions that were asked and what became of them."""
        attempts = self.open().attempts() if self.begun else {}
        plan = plan_rationales(self.questions, attempts, self._settings)
        return StagePlan(
            name=self.name,
            unit="questions",
            done=plan.kept + sum(plan.dropped.values()),
            to_do=plan.to_do,
            dropped=dict(plan.dropped),
            detail="; ".join(_details(plan, self._settings)) or self._neighbour,
            shard=self._shard,
        )

    def execute(self, progress: Progress, stop: StopSignal) -> None:
        """Ask what has not been asked."""
        config = self._inputs.config
        space = self._open_or_create(progress)
        write_rationales(
            self.questions,
            RationaleStore(space, note={"engine": self._settings.engine, **commit_note()}),
            config.teacher,
            self._settings,
            identity=self._inputs.teacher,
            progress=progress,
            stop=stop,
            after=self._after(progress, stop) if self.reading else None,
        )

    def _after(self, progress: Progress, stop: StopSignal) -> "After":
        with importing():
            from stages.attention.in_vllm.worker import EXTENSION
            from stages.attention.in_vllm.write import vllm_of
            from stages.rationales.write import After

        def use(engine: "Engine") -> None:
            if self._settings.keywords and not RationaleStage(self._inputs, self._shard).plan().finished:
                return  # key words are critical words: a record is not what it will be
            for opened in self.reading:
                attention = opened()
                attention.engine = vllm_of(engine)
                if attention.missing:
                    attention.execute_what_is_there(progress, stop)

        return After(use=use, extension=EXTENSION)

    def forget(self) -> None:
        """Let go of questions and rationales; they are read again when somebody asks for them."""
        for name in ("questions", "rationales"):
            self.__dict__.pop(name, None)
        self._inputs.forget("train")

    @property
    def space(self) -> Space:
        """Its space, which has to be there."""
        return self._open()

    @property
    def by_source(self) -> tuple[str, ...]:
        """Its fingerprint, for it is the only source."""
        return (self.fingerprint,)

    @property
    def standing(self) -> Spec:
        """What it depends on, beside questions and attempts, which rationales there are."""
        return {"standing": standing_spec(self._settings)}

    @property
    def parts(self) -> Spec:
        """What attempts there are."""
        return Place(space=self.space, of={}).head

    def open(self) -> RationaleStore:
        """Open the store of rationales, which has to be there."""
        return RationaleStore(self._open())


class RecordStage(StageWithSpace):
    """A stage that runs the teacher over the records of a run; with `shard` over its records only."""

    @property
    def selection(self) -> Selection:
        """The records of the run."""
        raise NotImplementedError

    @property
    def rationale_plan(self) -> StagePlan:
        """What has been done of the rationales that the records are made of."""
        raise NotImplementedError

    def _stored(self, space: Space) -> KeyRows:
        """The keys of all stored records that need nothing more."""
        raise NotImplementedError

    def _writing(self, space: Space, progress: Progress) -> Callable[..., None]:
        """What runs the teacher over records and commits to `space` what it makes of them."""
        raise NotImplementedError

    @cached_property
    def _share(self) -> Sequence[Example]:
        """Those of the run's records that are this process's own: all of them, or a shard."""
        examples, shard = self.selection.examples, self._shard
        if shard is None:
            return examples
        own = [shard.owns(key) for key in keys_of(examples)]
        return chosen(examples, np.array(own, dtype=bool))

    @cached_property
    def _plan(self) -> StagePlan:
        """Count the records that are stored, as far as rationales are there.

        What was left out before it had a record belongs to no shard and is counted for the whole only.
        """
        keys = key_rows(keys_of(self._share))
        own = KeyIndex([keys] if self._dropped else [])
        unusable = {key: reason for key, reason in self._dropped.items() if own.find(key) is not None}
        done = are_among(keys, self._recorded) | are_among(keys, key_rows(unusable))
        dropped = Counter({} if self._shard else self.selection.dropped) + Counter(unusable.values())
        return StagePlan(
            name=self.name,
            unit="records",
            done=int(done.sum()),
            to_do=int((~done).sum()),
            dropped=dict(dropped),
            detail=self._neighbour,
            waits_for=None if self.rationale_plan.finished else "rationales",
            shard=self._shard,
        )

    def execute(self, progress: Progress, stop: StopSignal) -> None:
        """Run the teacher over the records that are missing."""
        self.require_records()
        if self.plan().waits_for:
            progress.note(f"{self.rationale_plan.line()}; going on with those that are there")
        self.execute_what_is_there(progress, stop)

    def execute_what_is_there(self, progress: Progress, stop: StopSignal) -> None:
        """The same of the records that there are."""
        write = self._writing(self._open_or_create(progress), progress)
        write(
            [example.marked for example in self._share],
            known=self._known,
            teacher=self._inputs.config.teacher,
            settings=self._settings,
            identity=self._inputs.teacher,
            progress=progress,
            stop=stop,
        )

    def require_records(self) -> None:
        """Raise `MissingRecordsError` where nothing can be learned: no question has a rationale."""
        if not self.selection.examples:
            raise MissingRecordsError(no_rationales(self.rationale_plan))

    @property
    def missing(self) -> Sequence[Example]:
        """Records of this process that are neither stored nor known to be unusable."""
        return chosen(self._share, ~which(self._share, self._known))

    @property
    def _known(self) -> set[str]:
        return self.recorded | self._dropped.keys()

    @cached_property
    def recorded(self) -> set[str]:
        """Keys of all stored records that need nothing more, the run's or not."""
        return set(hex_keys(self._recorded))

    @cached_property
    def _recorded(self) -> KeyRows:
        return self._stored(self._open()) if self.begun else key_rows(())

    @cached_property
    def _dropped(self) -> dict[str, str]:
        """Reasons of all records that the teacher could not read, the run's or not."""
        return dropped_records(self._open().commits()) if self.begun else {}


class AttentionStage(RecordStage):
    """Records where the teacher looks while it reads questions and rationales.

    With `totals`, records are missing as well that are stored without what their steps look at in all.
    """

    name = "attention"
    _spec_of, _slug_of = staticmethod(attention_spec), staticmethod(attention_slug)

    def __init__(
        self,
        inputs: Inputs,
        rationales: Rationales,
        shard: Shard | None = None,
        *,
        totals: bool = False,
    ) -> None:
        """`rationales` are those of the whole run: which of the records are a shard's own follows from the records."""
        super().__init__(inputs, shard)
        self.rationales = rationales
        self.beside: Callable[[Progress], Beside | None] | None = None
        """What else the teacher's pass over the records is to give, once it is known that it is run."""
        self._totals = totals
        self.engine: VllmEngine | None = None
        """The engine that runs already and reads the records, where there is one."""

    @cached_property
    def _settings(self) -> AttentionSettings:
        return attention_settings(self._inputs.config)

    def _speed(self) -> Spec:
        teacher = self._inputs.config.teacher
        if self._settings.engine != "transformers":
            return {"engine": self._settings.engine, "arguments": dict(self._settings.engine_arguments)}
        devices = {"device": teacher.device, "device_map": teacher.device_map}
        return {**devices, "batch_tokens": self._settings.batch_tokens, "totals": self._totals}

    @cached_property
    def selection(self) -> Selection:
        """The records of the run: kept rationales, marked, without those that have no critical word."""
        return self._kept.selection if self._kept else select_examples(self.rationales.rationales, self._settings)

    @property
    def known(self) -> bool:
        """Whether an earlier process has kept the records of just these questions and rationales."""
        return self._kept is not None

    def keep(self) -> None:
        """Keep the records beside the store, for this process and later ones; all rationales have to be there."""
        if self._kept is not None or not self.selection.examples:
            return
        plan = self.rationale_plan
        assert plan.finished, "records of some of the questions are not kept"
        if self._inputs.described("train") != self._place.of["questions"]:
            return  # somebody has written a file of questions since; the records are those of neither
        about: Spec = {"done": plan.done, "dropped": dict(plan.dropped), "detail": plan.detail}
        self._kept = keep_selection(self._place, self.selection, about)
        self.selection = self._kept.selection
        self.__dict__.pop("_share", None)
        self.rationales.forget()

    @property
    def rationale_plan(self) -> StagePlan:
        """What `rationales.plan()` says, without reading rationales where the records of all of them are kept."""
        if self._kept is None:
            return self.rationales.plan()
        return StagePlan(name=self.rationales.name, unit="questions", to_do=0, **self._kept.about)

    @cached_property
    def _kept(self) -> Kept | None:
        return read_selection(self._place) if self.rationales.begun else None

    @cached_property
    def _place(self) -> Place:
        of: Spec = {
            "questions": self._inputs.described("train"),
            **self.rationales.standing,
            "marking": marking_spec(self._settings),
        }
        return Place(space=self.rationales.space, of=of)

    def _stored(self, space: Space) -> KeyRows:
        return recorded_rows(space, with_totals=self._totals)

    def _writing(self, space: Space, progress: Progress) -> Callable[..., None]:
        """With `beside`, a stage of the same records, what that stage lacks too, where it reads the same texts."""
        from cache.writer import AttentionWriter

        writer = AttentionWriter(space, note=commit_note())
        if self._settings.engine == "vllm":
            with importing():
                from stages.attention.in_vllm.write import write_attention_by_vllm

            return partial(write_attention_by_vllm, writer=writer, engine=self.engine)
        with importing():
            from stages.attention.write import write_attention

        beside = None if self.beside is None else self.beside(progress)
        return partial(write_attention, writer=writer, beside=beside)

    def open(self) -> AttentionStore:
        """Open the stored attention for training."""
        return AttentionStore(self._open())


def attention_settings(config: "Config") -> AttentionSettings:
    """The settings of the attention, with the arguments of the engine that writes the rationales where it has none."""
    own, rationales = config.attention, config.rationales
    if own.engine == "vllm" and not own.engine_arguments and rationales.engine == "vllm":
        return replace(own, engine_arguments=rationales.engine_arguments)
    return own


def by_one_engine(config: "Config") -> bool:
    """Whether the engine that writes the rationales can read them for their attention as well."""
    attention = attention_settings(config)
    both = (attention.engine, config.rationales.engine) == ("vllm", "vllm")
    return both and attention.engine_arguments == config.rationales.engine_arguments


def _details(plan: RationalePlan, settings: RationaleSettings) -> Iterator[str]:
    """What numbers of questions do not say: what they are asked for, and how many rationales there are."""
    if again := len({ask.key for ask in plan.pending.get("gold_shown", ())}):
        yield f"{again:,} of them again, with the gold answer shown"
    if unnamed := len(plan.pending.get("keywords", ())):
        yield f"{unnamed:,} rationales wait for their key words"
    if settings.samples > 1:
        yield f"{plan.rationales:,} rationales of up to {settings.samples:,} each, {plan.repeated:,} more the same"


def no_rationales(plan: StagePlan) -> str:
    """Why nothing can be learned: no question has a rationale."""
    if not plan.finished:
        return f"no rationales are there yet ({plan.line()}); make them with: molsaki rationales CONFIG"
    return (
        f"no rationale was kept of {plan.done:,} questions ({reasons(plan.dropped)}); "
        "try more rationales.shots, rationales.chat or another teacher.model"
    )
