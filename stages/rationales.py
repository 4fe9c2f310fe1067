"""The teacher's rationales: questions go in, attempts with their outcomes go into the store, kept rationales come out.

Each question is asked once. Where the answer is wrong or cannot be read, it is asked once more with the gold answer
shown (the second phase, after arXiv 2604.15701, appendix F.3). Work goes by pieces, each committed before the next
begins, and what the store holds is never asked again: a run that was stopped anywhere continues where it stopped, and
one with nothing to ask starts no engine. With `engine: file` rationales come from a file and are judged alike.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, Self

from cache.keys import question_key
from cache.rationales import KEPT, Attempt, RationaleStore
from data.answers import is_right, parse_answer
from data.errors import EngineError
from data.prompts import STOP_STRINGS, answer_sentence, finish_rationale, hint, rationale_messages, rationale_prompt
from data.readers import read_rationales
from data.records import Phase, Question, Rationale
from data.sharding import Shard
from stages.engines import Decoding, Engine, EngineSetup, Generation, load_tokenizer, open_engine, render_chat
from stages.models import ModelIdentity
from stages.progress import Progress, StopSignal
from stages.servers import Server
from stages.settings import RationaleSettings, TeacherSettings
from stages.specs import author_of, rationale_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WRONG = "wrong answer"
NOT_FOUND = "no answer found"
CUT_OFF = "cut off at max_tokens"
TOO_LONG = "prompt too long"
NO_GOLD = "no gold answer"
EMPTY = "empty"
NOT_IN_FILE = "no rationale in the file"
RESTATES = "only restates the answer"
LEAKS = "speaks of the answer that it was shown"

ASKED_AGAIN = frozenset({WRONG, NOT_FOUND, CUT_OFF, EMPTY})
"""Outcomes of the plain phase after which the second phase asks; the rest would end no better."""
TASKS: Mapping[Phase, str] = {
    "plain": "rationales",
    "gold_shown": "rationales, answer shown",
    "imported": "rationales from a file",
}
_TOLD = re.compile(r"\b(?:correct|given|provided|stated)\s+answer\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class RationalePlan:
    """What became of the questions so far and which are still to be asked; equal questions count once.

    `found` counts the committed attempts, `dropped` by reason the questions that stay without rationale, and `pending`
    holds by phase and key those to ask next. A question of the first phase may still need the second one as well.
    """

    found: int
    kept: int
    dropped: Mapping[str, int]
    pending: Mapping[Phase, Mapping[str, Question]]

    @property
    def to_do(self) -> int:
        """Number of different questions that are to be asked."""
        return sum(len(questions) for questions in self.pending.values())


@dataclass(frozen=True, kw_only=True)
class RationaleSummary:
    """`asked` attempts were made by this call and `found` were there before; `kept` and `dropped` count questions."""

    asked: int
    kept: int
    dropped: Counter[str]
    found: int


def write_rationales(
    questions: Sequence[Question],
    store: RationaleStore,
    teacher: TeacherSettings,
    settings: RationaleSettings,
    *,
    identity: ModelIdentity,
    progress: Progress,
    stop: StopSignal,
    engine: Engine | None = None,
) -> RationaleSummary:
    """Ask what the store does not hold yet, piece by piece, and judge every output.

    `engine` replaces the one that the settings name; it is left open, while one started here is closed. Raises
    `EngineError` when the engine fails and `Interrupted` after a signal; what was committed before stays either way.
    """
    attempts = store.attempts()
    before = plan_rationales(questions, attempts, settings)
    if before.found:
        progress.note(f"rationales: {before.found:,} attempts are in the store already")
    job = _Job(store=store, piece=settings.piece, progress=progress, stop=stop)
    with _source(questions, teacher, settings, identity, progress, stop, engine) as source:
        for phase in _phases(settings):
            pending = plan_rationales(questions, attempts, settings).pending[phase]
            attempts |= {(attempt.key, phase): attempt for attempt in _write_phase(pending, phase, source, job)}
    after = plan_rationales(questions, attempts, settings)
    return RationaleSummary(
        asked=after.found - before.found, kept=after.kept, dropped=Counter(after.dropped), found=before.found
    )


def plan_rationales(
    questions: Sequence[Question], attempts: Mapping[tuple[str, Phase], Attempt], settings: RationaleSettings
) -> RationalePlan:
    """Compare the questions with `RationaleStore.attempts()`; cheap, nothing is loaded."""
    found, outcomes = 0, Counter[str]()
    pending: dict[Phase, dict[str, Question]] = {phase: {} for phase in _phases(settings)}
    for key, question in _by_key(questions, settings).items():
        made = _made(key, attempts, settings)
        found += len(made)
        following = _following_phase(made, settings)
        if following:
            pending[following][key] = question
        else:
            outcomes[made[-1].outcome] += 1
    return RationalePlan(found=found, kept=outcomes.pop(KEPT, 0), dropped=outcomes, pending=pending)


def kept_rationales(
    questions: Sequence[Question], store: RationaleStore, settings: RationaleSettings
) -> list[Rationale]:
    """The kept rationales of these questions, in their order; questions without one are left out."""
    attempts = store.attempts()
    last = [(question, _made(_key(question, settings), attempts, settings)[-1:]) for question in questions]
    return [
        Rationale(question=question, text=attempt.rationale, answer=attempt.gold, phase=attempt.phase)
        for question, made in last
        for attempt in made
        if attempt.outcome == KEPT
    ]


def own_questions(questions: Sequence[Question], settings: RationaleSettings, shard: Shard) -> list[Question]:
    """The questions of one shard: all phases of a question belong to the same one."""
    return [question for question in questions if shard.owns(_key(question, settings))]


def judge(question: Question, generation: Generation | None, phase: Phase) -> tuple[str, str | None]:
    """Decide what becomes of an output: (`kept` or the reason against it, the answer found in it)."""
    if question.answer is None:
        return NO_GOLD, None
    if generation is None:
        return NOT_IN_FILE, None
    if generation.finish_reason == "too_long":
        return TOO_LONG, None
    if not generation.text.strip():
        return EMPTY, None
    answer = parse_answer(generation.text, question)
    # The answer to a rationale without its end is a number on the way, if it is one at all.
    if generation.finish_reason == "length":
        return CUT_OFF, answer
    if answer is None:
        return NOT_FOUND, None
    if not is_right(answer, question):
        return WRONG, answer
    return (_shown_outcome(question, generation.text) if phase == "gold_shown" else KEPT), answer


def _shown_outcome(question: Question, output: str) -> str:
    """Whether a rationale written with the answer in sight explains anything, and does not mention that."""
    assert question.answer is not None
    finished = finish_rationale(output, question, question.answer)
    if finished == answer_sentence(question, question.answer):
        return RESTATES
    if hint(question) in output or (_TOLD.search(finished) and not _TOLD.search(question.text)):
        return LEAKS
    return KEPT


def _key(question: Question, settings: RationaleSettings) -> str:
    """Key over the question and its plain prompt; a chat template's share is in the tokenizer's hash already."""
    if settings.engine == "file":
        return question_key(question, question.id)  # by which the file knows it
    if settings.chat:
        return question_key(question, json.dumps(rationale_messages(question, shots=settings.shots)))
    return question_key(question, rationale_prompt(question, shots=settings.shots))


def _phases(settings: RationaleSettings) -> tuple[Phase, ...]:
    if settings.engine == "file":
        return ("imported",)
    return ("plain", "gold_shown") if settings.second_phase else ("plain",)


def _by_key(questions: Sequence[Question], settings: RationaleSettings) -> dict[str, Question]:
    """The different questions, each where it comes first."""
    different: dict[str, Question] = {}
    for question in questions:
        different.setdefault(_key(question, settings), question)
    return different


def _made(key: str, attempts: Mapping[tuple[str, Phase], Attempt], settings: RationaleSettings) -> list[Attempt]:
    """The attempts at a question that count under these settings, in the order of the phases; the last one decides."""
    made: list[Attempt] = []
    for phase in _phases(settings):
        attempt = attempts.get((key, phase))
        if attempt is None or (made and made[-1].outcome not in ASKED_AGAIN):
            break
        made.append(attempt)
    return made


def _following_phase(made: Sequence[Attempt], settings: RationaleSettings) -> Phase | None:
    phases = _phases(settings)
    if len(made) == len(phases) or (made and made[-1].outcome not in ASKED_AGAIN):
        return None
    return phases[len(made)]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What every piece needs beside its questions."""

    store: RationaleStore
    piece: int
    progress: Progress
    stop: StopSignal


def _write_phase(pending: Mapping[str, Question], phase: Phase, source: "_Source", job: _Job) -> Iterator[Attempt]:
    """Ask, judge and commit piece by piece."""
    if pending:
        job.progress.start(TASKS[phase], len(pending))
    items = list(pending.items())
    for start in range(0, len(items), job.piece):
        attempts = _ask(dict(items[start : start + job.piece]), phase, source, job.stop)
        job.store.append(attempts)
        job.progress.advance(len(attempts))
        yield from attempts
        job.stop.check(f"{len(attempts)} more rationales")


def _ask(piece: Mapping[str, Question], phase: Phase, source: "_Source", stop: StopSignal) -> list[Attempt]:
    """Put the questions that have a gold answer; the others could not be judged."""
    answerable = {key: question for key, question in piece.items() if question.answer is not None}
    try:
        outputs = source.outputs(list(answerable.values()), phase) if answerable else []
    except EngineError:
        # A signal to the whole process group ends the engine as well; then it is not the engine that failed.
        stop.check("everything before the current piece")
        raise
    generations = dict(zip(answerable, outputs, strict=True))
    return [_attempt(key, question, generations.get(key), phase) for key, question in piece.items()]


def _attempt(key: str, question: Question, generation: Generation | None, phase: Phase) -> Attempt:
    outcome, answer = judge(question, generation, phase)
    output = generation.text if generation else ""
    gold = question.answer or ""
    return Attempt(
        key=key,
        question_id=question.id,
        dataset=question.dataset,
        question=question.text,
        gold=gold,
        phase=phase,
        output=output,
        rationale=finish_rationale(output, question, gold) if outcome == KEPT else "",
        answer=answer or "",
        outcome=outcome,
    )


class _Source(Protocol):
    """Where outputs come from; a context that gives back what it holds."""

    def outputs(self, questions: Sequence[Question], phase: Phase) -> Sequence[Generation | None]:
        """Return what there is for each question."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def _source(
    questions: Sequence[Question],
    teacher: TeacherSettings,
    settings: RationaleSettings,
    identity: ModelIdentity,
    progress: Progress,
    stop: StopSignal,
    engine: Engine | None,
) -> _Source:
    if settings.engine == "file":
        return _File(questions, settings)
    return _Teacher(teacher, settings, identity, progress, stop, engine)


class _File:
    """Rationales that exist already, read when the first is needed."""

    def __init__(self, questions: Sequence[Question], settings: RationaleSettings) -> None:
        self._questions = questions
        self._settings = settings

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is held."""

    def outputs(self, questions: Sequence[Question], _phase: Phase) -> list[Generation | None]:
        """Return what the file says about each question."""
        texts = [self._rationales.get(question.id) for question in questions]
        return [None if text is None else Generation(text=text, finish_reason="stop") for text in texts]

    @cached_property
    def _rationales(self) -> dict[str, str]:
        return read_rationales(str(rationale_file(self._settings)), self._questions)


class _Teacher:
    """The teacher behind an engine that starts with the first question, since start-up takes half a minute or more."""

    def __init__(
        self,
        teacher: TeacherSettings,
        settings: RationaleSettings,
        identity: ModelIdentity,
        progress: Progress,
        stop: StopSignal,
        engine: Engine | None,
    ) -> None:
        self._teacher = teacher
        self._settings = settings
        self._identity = identity
        self._progress = progress
        self._stop = stop
        self._given = engine
        self._started: Engine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._started is not None:
            self._started.close()

    def outputs(self, questions: Sequence[Question], phase: Phase) -> list[Generation]:
        """Put the questions to the teacher."""
        return self._engine.generate([self._prompt(question, phase == "gold_shown") for question in questions])

    def _prompt(self, question: Question, gold_shown: bool) -> str:
        shots = self._settings.shots
        if self._settings.chat:
            messages = rationale_messages(question, shots=shots, gold_shown=gold_shown)
            return render_chat(self._tokenizer, messages) if author_of(self._settings) is None else json.dumps(messages)
        return rationale_prompt(question, shots=shots, gold_shown=gold_shown)

    @cached_property
    def _tokenizer(self) -> "PreTrainedTokenizerBase":
        trust = self._teacher.trust_remote_code
        return load_tokenizer(self._identity.path, self._identity.hub_revision, trust_remote_code=trust)

    @property
    def _engine(self) -> Engine:
        if self._given is not None:
            return self._given
        if self._started is None:
            self._progress.note(f"starting {self._settings.engine} with {self._identity.name}")
            setup = replace(
                engine_setup(self._teacher, self._settings, self._identity), stop=self._stop, note=self._progress.note
            )
            assert self._settings.engine != "file"
            self._started = open_engine(self._settings.engine, setup)
        return self._started


def engine_setup(teacher: TeacherSettings, settings: RationaleSettings, identity: ModelIdentity) -> EngineSetup:
    """What the settings mean to an engine; chat models end by themselves and use blank lines freely."""
    decoding = Decoding(
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=settings.seed,
        stop=() if settings.chat else STOP_STRINGS,
    )
    return EngineSetup(
        model=identity.path,
        revision=identity.hub_revision,
        decoding=decoding,
        dtype=teacher.dtype,
        device=teacher.device,
        adds_special_tokens=not settings.chat,
        trust_remote_code=teacher.trust_remote_code,
        arguments=settings.engine_arguments,
        server=served_by(teacher, settings),
        restarts=settings.restarts,
    )


def served_by(teacher: TeacherSettings, settings: RationaleSettings) -> Server | None:
    """The server that `engine: openai` asks."""
    if settings.engine != "openai":
        return None
    author = author_of(settings)
    return Server(
        address=settings.server,
        model=author or settings.served_model or teacher.model,
        is_teacher=author is None,
        renamed=settings.served_model is not None,
        chat=settings.chat and author is not None,
        requests=settings.server_requests,
        request_seconds=settings.request_seconds,
        patience_seconds=settings.patience_seconds,
    )
