"""The teacher's rationales: questions go in, attempts with their outcomes go into the store, kept rationales come out.

Each question is asked once, or as often as `samples` says. Where no answer is right it is asked once more with the gold
answer shown (the second phase, after arXiv 2604.15701, appendix F.3); last, the teacher names the key words of what was
kept, if it is to. Each of these rounds is one stream through the engine, of which pieces are committed as they come:
what the store holds is never asked again. A run that was stopped anywhere continues where it stopped, and one with
nothing to ask starts no engine. With `engine: file` rationales come from a file and are judged alike.
"""

import json
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeAlias

from cache.fingerprints import Spec
from cache.keys import keywords_key, question_key
from cache.rationales import KEPT, Attempt, AttemptName, RationaleStore
from data import keyword_prompts
from data.errors import EngineError
from data.keyword_prompts import keyword_messages, keyword_prompt
from data.prompts import STOP_STRINGS, explain_prompt, finish_rationale, rationale_messages, rationale_prompt
from data.readers import read_rationales
from data.records import Phase, Question, Rationale
from stages.engines.contract import Cluster, Decoding, Engine, EngineSetup, Generation, sample_seed
from stages.engines.openai_server import MAY_BE_LEFT_OUT, Server
from stages.engines.start import open_engine
from stages.models.identity import ModelIdentity
from stages.models.tokenizer import load_tokenizer, render_chat
from stages.rationales.judge import ASKED_AGAIN, WHATEVER_SAMPLE, judge, judge_keywords, whole_characters
from stages.rationales.spec import author_of, rationale_file
from stages.runtime.pieces import Gathering
from stages.runtime.progress import Progress, StopSignal
from stages.runtime.shard import Shard
from stages.settings import RationaleSettings, TeacherSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASKS: Mapping[Phase, str] = {
    "plain": "rationales",
    "gold_shown": "rationales, answer shown",
    "imported": "rationales from a file",
    "keywords": "key words",
}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One thing to put to the teacher, and the name that its answer will have in the store.

    `rationale` is the text that the key words are asked of, empty in the other phases.
    """

    key: str
    question: Question
    phase: Phase
    sample: int = 0
    rationale: str = ""

    @property
    def name(self) -> AttemptName:
        """What the attempt will be known by."""
        return self.key, self.phase, self.sample


Source: TypeAlias = Callable[[Sequence[Ask]], Generator[tuple[Ask, Generation | None]]]
"""Loads whatever answers these, if it is not loaded yet, and then yields what there is for each, in any order."""


@dataclass(frozen=True, kw_only=True)
class RationalePlan:
    """What became of the questions so far and what is still to be asked; equal questions count once.

    `found` counts the committed attempts, `kept` the questions with a rationale, `rationales` these rationales,
    `repeated` those that are the same as another sample of their question, and `dropped` by reason the questions that
    stay without. `pending` holds by phase what to ask next, for `to_do` different questions; what is asked in a later
    phase follows from the answers.
    """

    found: int
    kept: int
    rationales: int
    repeated: int
    dropped: Mapping[str, int]
    pending: Mapping[Phase, Sequence[Ask]]
    to_do: int


@dataclass(frozen=True, kw_only=True)
class RationaleSummary:
    """`asked` attempts were made by this call and `found` were there before; `kept` and `dropped` count questions.

    `asked_again` counts what a server had to be asked beyond that, by what it had said instead of answering.
    """

    asked: int
    kept: int
    dropped: Counter[str]
    found: int
    asked_again: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How it stands with one question: the `attempts` at it that count under the settings, in the order of the phases.

    `kept` are its rationales that differ, with their key words, `repeated` the attempts that are the same as one of
    these, `keywords` the attempts at their key words. `asks` are what to put next; there are none once it is done.
    """

    attempts: Sequence[Attempt]
    kept: Sequence[Rationale] = ()
    repeated: Sequence[Attempt] = ()
    keywords: Sequence[Attempt] = ()
    asks: Sequence[Ask] = ()


BETWEEN = 1024
"""At least so many questions are asked before the engine does what else there is for it to do."""
SHARE_BETWEEN = 0.25
"""And so many of what is there, for each time all of it is looked at, and the engine runs empty."""


@dataclass(frozen=True, kw_only=True)
class After:
    """What else is done by the engine between questions, and the class that its workers need for it."""

    use: Callable[[Engine], None]
    extension: str


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
    after: After | None = None,
) -> RationaleSummary:
    """Ask what the store does not hold yet, judge every output, and commit them by pieces as they come.

    `engine` replaces the one that the settings name; it is left open, while one started here is closed. `after` gets
    the engine whenever some answers are committed and nobody is waiting for others. Raises `EngineError` when the
    engine fails and `Interrupted` after a signal: everything that was answered by then is committed either way.
    """
    attempts = store.attempts()
    keyed = _by_key(questions, settings)
    before = plan = _plan(keyed, attempts, settings)
    asked = 0
    teacher_asked: _Teacher | None = None
    if before.found:
        progress.note(f"rationales: {before.found:,} attempts are in the store already")
    with ExitStack() as opened:
        source: Source = partial(_from_file, questions, settings)
        if settings.engine != "file":
            source = teacher_asked = _Teacher(
                teacher=teacher,
                settings=settings,
                identity=identity,
                progress=progress,
                stop=stop,
                opened=opened,
                given=engine,
                extension=None if after is None else after.extension,
            )
        opened.callback(lambda: _note_asked_again(teacher_asked, settings, progress))
        while asks := _next_round(plan):
            asks = asks if after is None else asks[: max(BETWEEN, int(SHARE_BETWEEN * len(attempts)))]
            made = _write_round(asks, source, store, settings, progress, stop)
            attempts |= {attempt.name: attempt for attempt in made}
            asked += len(made)
            plan = _plan(keyed, attempts, settings)
            if after is not None and teacher_asked is not None:
                after.use(teacher_asked.running)
    return RationaleSummary(
        asked=asked,
        kept=plan.kept,
        dropped=Counter(plan.dropped),
        found=before.found,
        asked_again=teacher_asked.asked_again if teacher_asked else Counter(),
    )


def _note_asked_again(teacher: "_Teacher | None", settings: RationaleSettings, progress: Progress) -> None:
    """Say what a server had to be asked more than once, whether the stage is done or ends early."""
    again = teacher.asked_again if teacher else Counter()
    if again:
        kinds = ", ".join(f"{said} {count:,}" for said, count in again.most_common())
        progress.note(
            f"rationales: {again.total():,} requests were sent again after the server had said {kinds}; "
            f"each may take rationales.patience_seconds ({settings.patience_seconds:g}) in all"
        )


def plan_rationales(
    questions: Sequence[Question], attempts: Mapping[AttemptName, Attempt], settings: RationaleSettings
) -> RationalePlan:
    """Compare the questions with `RationaleStore.attempts()`; cheap, nothing is loaded."""
    return _plan(_by_key(questions, settings), attempts, settings)


def kept_rationales(
    questions: Sequence[Question], store: RationaleStore, settings: RationaleSettings
) -> list[Rationale]:
    """The kept rationales of these questions, in their order, those of one question in the order of its samples."""
    attempts = store.attempts()
    return [
        rationale
        for question in questions
        for rationale in standing(_key(question, settings), question, attempts, settings).kept
    ]


def standing_spec(settings: RationaleSettings) -> Spec:
    """What it depends on, beside questions and attempts, how it stands with them (`standing`)."""
    names = ("samples", "second_phase", "keywords", "chat", "shots", "as_student")
    return {"file": settings.engine == "file", **{name: getattr(settings, name) for name in names}}


def standings(
    questions: Sequence[Question], attempts: Mapping[AttemptName, Attempt], settings: RationaleSettings
) -> list[tuple[Question, Standing]]:
    """How it stands with each of the different questions, in their order."""
    return [
        (question, standing(key, question, attempts, settings))
        for key, question in _by_key(questions, settings).items()
    ]


def own_questions(questions: Sequence[Question], settings: RationaleSettings, shard: Shard) -> list[Question]:
    """The questions of one shard: all phases and samples of a question belong to the same one."""
    return [question for question in questions if shard.owns(_key(question, settings))]


def standing(
    key: str, question: Question, attempts: Mapping[AttemptName, Attempt], settings: RationaleSettings
) -> Standing:
    """How it stands with one question, which has this key, after these attempts.

    The second phase follows where every sample of the first was wrong or had no answer, key words where all samples
    are there.
    """
    made: list[Attempt] = []
    asks: list[Ask] = []
    for phase in _phases(settings):
        names = [(key, phase, sample) for sample in range(1 if settings.engine == "file" else settings.samples)]
        there = [attempts[name] for name in names if name in attempts]
        made += there
        if not any(attempt.outcome in WHATEVER_SAMPLE for attempt in there):
            missing = [sample for sample, name in enumerate(names) if name not in attempts]
            asks = [Ask(key=key, question=question, phase=phase, sample=sample) for sample in missing]
        if asks or not all(attempt.outcome in ASKED_AGAIN for attempt in there):
            break
    found, repeated = _different([attempt for attempt in made if attempt.outcome == KEPT])
    wanted = [_keyword_ask(question, attempt.rationale, settings) for attempt in found] if settings.keywords else []
    named = [attempts.get(ask.name) for ask in wanted] or [None] * len(found)
    return Standing(
        attempts=made,
        kept=[
            _rationale(question, attempt, words.keywords if words else ())
            for attempt, words in zip(found, named, strict=True)
        ],
        repeated=repeated,
        keywords=[words for words in named if words],
        asks=asks or [ask for ask in wanted if ask.name not in attempts],
    )


def _rationale(question: Question, attempt: Attempt, keywords: tuple[str, ...]) -> Rationale:
    return Rationale(
        question=question, text=attempt.rationale, answer=attempt.gold, phase=attempt.phase, keywords=keywords
    )


def _different(kept: Sequence[Attempt]) -> tuple[list[Attempt], list[Attempt]]:
    """The attempts whose text differs by more than white space and case, each where it comes first, and the others."""
    first: dict[str, Attempt] = {}
    for attempt in kept:
        first.setdefault(" ".join(attempt.rationale.split()).casefold(), attempt)
    different = list(first.values())
    return different, [attempt for attempt in kept if not any(attempt is each for each in different)]


def _plan(
    keyed: Mapping[str, Question], attempts: Mapping[AttemptName, Attempt], settings: RationaleSettings
) -> RationalePlan:
    stands = [standing(key, question, attempts, settings) for key, question in keyed.items()]
    over = [each for each in stands if not each.asks]
    last: tuple[Phase, ...] = ("keywords",) if settings.keywords else ()
    pending: dict[Phase, list[Ask]] = {phase: [] for phase in (*_phases(settings), *last)}
    for each in stands:
        for ask in each.asks:
            pending[ask.phase].append(ask)
    return RationalePlan(
        found=sum(len(each.attempts) + len(each.keywords) for each in stands),
        kept=sum(bool(each.kept) for each in over),
        rationales=sum(len(each.kept) for each in stands),
        repeated=sum(len(each.repeated) for each in stands),
        dropped=Counter(each.attempts[-1].outcome for each in over if not each.kept),
        pending=pending,
        to_do=len(stands) - len(over),
    )


def _next_round(plan: RationalePlan) -> list[Ask]:
    """What one stream asks: one sample in one phase, since a stream has one seed; empty where nothing is left."""
    asks = next((asks for asks in plan.pending.values() if asks), [])
    sample = min((ask.sample for ask in asks), default=0)
    # Equal texts of two questions with key words that nobody has asked for yet are one.
    return list({ask.name: ask for ask in asks if ask.sample == sample}.values())


def _key(question: Question, settings: RationaleSettings) -> str:
    """Key over the question and its plain prompt; a chat template's share is in the tokenizer's hash already."""
    if settings.engine == "file":
        return question_key(question, question.id)  # by which the file knows it
    return question_key(question, _as_text(_prompt(question, "plain", settings)))


def _keyword_ask(question: Question, rationale: str, settings: RationaleSettings) -> Ask:
    prompt = _as_text(_prompt(question, "keywords", settings, rationale))
    key = keywords_key(prompt, keyword_prompts.MAX_TOKENS)
    return Ask(key=key, question=question, phase="keywords", rationale=rationale)


def _prompt(
    question: Question, phase: Phase, settings: RationaleSettings, rationale: str = ""
) -> str | list[dict[str, str]]:
    """What is put to the teacher: a text, or with `chat` messages."""
    if phase == "keywords":
        asked = question.text, rationale
        return keyword_messages(*asked) if settings.chat else keyword_prompt(*asked)
    if settings.as_student:
        return explain_prompt(question.text)
    shown = phase == "gold_shown"
    if settings.chat:
        return rationale_messages(question, shots=settings.shots, gold_shown=shown)
    return rationale_prompt(question, shots=settings.shots, gold_shown=shown)


def _as_text(prompt: str | list[dict[str, str]]) -> str:
    return prompt if isinstance(prompt, str) else json.dumps(prompt)


def _phases(settings: RationaleSettings) -> tuple[Phase, ...]:
    """Phases that give rationales, in order."""
    if settings.engine == "file":
        return ("imported",)
    return ("plain", "gold_shown") if settings.second_phase else ("plain",)


def _by_key(questions: Sequence[Question], settings: RationaleSettings) -> dict[str, Question]:
    """The different questions, each where it comes first."""
    different: dict[str, Question] = {}
    for question in questions:
        different.setdefault(_key(question, settings), question)
    return different


def _write_round(
    asks: Sequence[Ask],
    source: Source,
    store: RationaleStore,
    settings: RationaleSettings,
    progress: Progress,
    stop: StopSignal,
) -> list[Attempt]:
    """Ask in one stream, judge, and commit by pieces; what was answered is committed whatever ends the stream."""
    coming = source(asks)
    progress.start(TASKS[asks[0].phase], len(asks))
    progress.saved(0)

    def write(answers: Sequence[tuple[Ask, Generation | None]]) -> list[Attempt]:
        attempts = [_attempt(ask, generation) for ask, generation in answers]
        store.append(attempts)
        return attempts

    try:
        with (
            Gathering(write, piece=settings.piece, minutes=settings.commit_minutes, done=progress.saved) as gathered,
            closing(coming) as answers,
        ):
            for answer in answers:
                gathered.add(answer)
                progress.advance()
                if stop.received is not None:
                    break
    except EngineError:
        # A signal to the whole process group ends the engine as well; then it is not the engine that failed.
        stop.check("what was answered so far")
        raise
    attempts = [attempt for piece in gathered.written for attempt in piece]
    stop.check(f"{len(attempts):,} more answers of the teacher")
    return attempts


def _attempt(ask: Ask, generation: Generation | None) -> Attempt:
    question, gold = ask.question, ask.question.answer or ""
    if generation is not None:
        generation = replace(generation, text=whole_characters(generation.text))
    output = generation.text if generation else ""
    common = Attempt(
        key=ask.key,
        question_id=question.id,
        dataset=question.dataset,
        question=question.text,
        gold=gold,
        phase=ask.phase,
        output=output,
        rationale=ask.rationale,
        answer="",
        outcome="",
        sample=ask.sample,
    )
    if ask.phase == "keywords":
        outcome, named = judge_keywords(question, ask.rationale, generation)
        return replace(common, outcome=outcome, keywords=named.words)
    outcome, answer = judge(question, generation, ask.phase)
    finished = finish_rationale(output, question, gold) if outcome == KEPT else ""
    return replace(common, outcome=outcome, rationale=finished, answer=answer or "")


def _from_file(
    questions: Sequence[Question], settings: RationaleSettings, asks: Sequence[Ask]
) -> Generator[tuple[Ask, Generation | None]]:
    """Rationales that exist already, read when the first is needed."""
    texts = read_rationales(str(rationale_file(settings)), questions, fields=settings.fields)
    found = ((ask, texts.get(ask.question.id)) for ask in asks)
    return ((ask, None if text is None else Generation(text=text, finish_reason="stop")) for ask, text in found)


@dataclass(frozen=True, kw_only=True)
class _Teacher:
    """The teacher behind an engine that starts with the first question, since start-up takes half a minute or more."""

    teacher: TeacherSettings
    settings: RationaleSettings
    identity: ModelIdentity
    progress: Progress
    stop: StopSignal
    opened: ExitStack
    """What closes the engine that is started here."""
    given: Engine | None
    extension: str | None = None

    @property
    def running(self) -> Engine:
        """The engine, started if it is not."""
        return self._engine

    def __call__(self, asks: Sequence[Ask]) -> Generator[tuple[Ask, Generation | None]]:
        """Start the engine if there is anything to ask it."""
        if any(ask.question.answer is not None for ask in asks):
            _ = self._engine
        return self._answers(asks)

    def _answers(self, asks: Sequence[Ask]) -> Generator[tuple[Ask, Generation | None]]:
        """Put the questions that have a gold answer; the others could not be judged."""
        answerable = [ask for ask in asks if ask.question.answer is not None]
        yield from ((ask, None) for ask in asks if ask.question.answer is None)
        if answerable:
            prompts = [self._text(ask) for ask in answerable]
            with closing(self._engine.stream(prompts, self._decoding(asks[0]))) as stream:
                for place, generation in stream:
                    yield answerable[place], generation

    def _decoding(self, ask: Ask) -> Decoding:
        """How everything is decoded that is asked together with `ask`."""
        decoding = engine_decoding(self.settings)
        if ask.phase == "keywords":
            stop = () if self.settings.chat else keyword_prompts.STOP_STRINGS
            temperature = decoding.temperature if self.settings.temperature is None else 0.0
            return replace(decoding, max_tokens=keyword_prompts.MAX_TOKENS, temperature=temperature, stop=stop)
        return replace(decoding, seed=sample_seed(decoding.seed, ask.sample))

    def _text(self, ask: Ask) -> str:
        """The prompt as the text that the engine takes; an author applies a template of its own."""
        prompt = _prompt(ask.question, ask.phase, self.settings, ask.rationale)
        if isinstance(prompt, str) or author_of(self.settings) is not None:
            return _as_text(prompt)
        return render_chat(self._tokenizer, prompt, self.settings.template_arguments, self.settings.template_date)

    @property
    def asked_again(self) -> Counter[str]:
        """What the engine had to ask more than once, as far as it was started."""
        engine: Engine | None = self.__dict__.get("_engine")
        return Counter() if engine is None else engine.asked_again

    @cached_property
    def _tokenizer(self) -> "PreTrainedTokenizerBase":
        trust = self.teacher.trust_remote_code
        return load_tokenizer(self.identity.path, self.identity.hub_revision, trust_remote_code=trust)

    @cached_property
    def _engine(self) -> Engine:
        if self.given is not None:
            return self.given
        self.progress.note(f"starting {self.settings.engine} with {author_of(self.settings) or self.identity.name}")
        setup = engine_setup(self.teacher, self.settings, self.identity)
        setup = replace(setup, stop=self.stop, note=self.progress.note, extension=self.extension)
        return self.opened.enter_context(open_engine(self.settings.engine, setup))


def engine_setup(teacher: TeacherSettings, settings: RationaleSettings, identity: ModelIdentity) -> EngineSetup:
    """What the settings mean to an engine."""
    return EngineSetup(
        model=identity.path,
        revision=identity.hub_revision,
        decoding=engine_decoding(settings),
        dtype=teacher.dtype,
        device=teacher.device,
        adds_special_tokens=not settings.chat,
        trust_remote_code=teacher.trust_remote_code,
        arguments=settings.engine_arguments,
        server=served_by(teacher, settings),
        restarts=settings.restarts,
        cluster=Cluster(address=settings.ray_address, replicas=settings.ray_replicas, batch=settings.ray_batch),
    )


def engine_decoding(settings: RationaleSettings) -> Decoding:
    """How the first sample is decoded; chat models end by themselves and use blank lines freely.

    What is null is not sent (`Server.left_out`): the value here stands for whatever the server takes instead.
    """
    return Decoding(
        max_tokens=settings.max_tokens,
        temperature=1.0 if settings.temperature is None else settings.temperature,
        top_p=1.0 if settings.top_p is None else settings.top_p,
        seed=0 if settings.seed is None else settings.seed,
        stop=() if settings.chat else STOP_STRINGS,
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
        left_out=frozenset(name for name in MAY_BE_LEFT_OUT if getattr(settings, name) is None),
        limit_field=settings.server_limit_field,
    )
