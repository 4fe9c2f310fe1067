"""What becomes of a teacher's outputs, and that work is neither lost nor done twice."""

import errno
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import stages.rationales.write
from cache.rationales import Attempt, AttemptName, RationaleStore
from cache.spaces import Space
from data.answers.parse import parse_answer
from data.errors import ConfigError, EngineError, Interrupted
from data.prompts import answer_sentence, hint, rationale_prompt
from data.readers import read_questions
from data.records import Question
from data.sets.synthetic import synthetic_questions
from data.settings import DataSource, RationaleFields
from stages.engines.contract import Answers, Decoding, Engine, EngineSetup, Generation
from stages.models.identity import ModelIdentity, identify_model
from stages.rationales.judge import judge
from stages.rationales.spec import rationale_slug, rationale_spec
from stages.rationales.write import After, RationaleSummary, kept_rationales, plan_rationales, write_rationales
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import RationaleSettings, TeacherSettings
from tests.fakes import ScriptedEngine, tiny_model_folder, tiny_tokenizer

TEACHER = TeacherSettings(model="teacher", dtype="float32", device="cpu")
IDENTITY = ModelIdentity(source="hub", path="owner/teacher", revision="0" * 40, tokenizer="1" * 64)
SETTINGS = RationaleSettings(engine="transformers", shots=2, piece=4)
Answer = Callable[[str], str | Generation]


def problem(name: str, answer: str | None = "7") -> Question:
    return Question(
        id=name,
        dataset="made-up",
        text=f"Tom has 3 {name}s and buys 4 more. How many {name}s has he?",
        answer=answer,
        answer_kind="number",
    )


def new_store(folder: Path, settings: RationaleSettings = SETTINGS) -> RationaleStore:
    spec = rationale_spec(IDENTITY, TEACHER, settings)
    return RationaleStore(Space.open_or_create(folder, "rationales", rationale_slug(IDENTITY, settings), spec))


def write(
    questions: Sequence[Question],
    store: RationaleStore,
    engine: Engine | None,
    settings: RationaleSettings = SETTINGS,
    stop: StopSignal | None = None,
    identity: ModelIdentity = IDENTITY,
    after: After | None = None,
) -> RationaleSummary:
    return write_rationales(
        questions,
        store,
        TEACHER,
        settings,
        identity=identity,
        progress=SilentProgress(),
        stop=stop or StopSignal(),
        engine=engine,
        after=after,
    )


def by_name(answers: dict[str, str | Generation]) -> Answer:
    """Answer the question at the end of a prompt by the name that occurs in it."""
    return lambda prompt: next(answer for name, answer in answers.items() if f"3 {name}s" in prompt)


def right(_prompt: str) -> str:
    return " He has 3 and 4 more. 3 + 4 = 7. So the answer is 7."


PLAIN_CASES: dict[str, tuple[str | Generation, str]] = {
    "apple": (" He has 3 and 4 more. 3 + 4 = 7. So the answer is 7.", "kept"),
    "pear": (" He has 3 and 4 more. 3 * 4 = 12. The answer is 12.", "wrong answer"),
    "plum": (" I do not know.", "no answer found"),
    "lemon": (Generation(text=" He has 3 + 4 = 7", finish_reason="length"), "cut off at max_tokens"),
    "melon": (Generation(text="", finish_reason="too_long"), "prompt too long"),
    "fig": ("  \n", "empty"),
}


def test_every_plain_output_gets_its_outcome_and_every_reason_is_counted(tmp_path: Path) -> None:
    questions = [problem(name) for name in PLAIN_CASES] + [problem("date", answer=None)]
    engine = ScriptedEngine(by_name({name: answer for name, (answer, _) in PLAIN_CASES.items()}))
    settings = replace(SETTINGS, second_phase=False)
    store = new_store(tmp_path)
    summary = write(questions, store, engine, settings)
    expected = {name: outcome for name, (_, outcome) in PLAIN_CASES.items()} | {"date": "no gold answer"}
    assert {attempt.question_id: attempt.outcome for attempt in store.attempts().values()} == expected
    assert (summary.asked, summary.kept, summary.found) == (7, 1, 0)
    assert summary.dropped == Counter({outcome: 1 for outcome in expected.values() if outcome != "kept"})
    assert len(engine.prompts) == 6, "a question without gold answer is not worth asking"


def test_half_a_character_in_an_output_stops_nothing(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    write([problem("apple")], store, ScriptedEngine(lambda prompt: " 3 + 4 = 7 \ud83c. The answer is 7."))
    (attempt,) = store.attempts().values()
    assert (attempt.outcome, attempt.output.count("\ufffd") > 0) == ("kept", True)


def test_a_kept_rationale_is_finished_and_a_dropped_one_keeps_only_the_output(tmp_path: Path) -> None:
    engine = ScriptedEngine(by_name({name: PLAIN_CASES[name][0] for name in ("apple", "pear")}))
    store = new_store(tmp_path)
    questions = [problem("pear"), problem("apple")]
    write(questions, store, engine, replace(SETTINGS, second_phase=False))
    apple, pear = sorted(store.attempts().values(), key=lambda attempt: attempt.question_id)
    assert (apple.rationale, apple.answer) == ("He has 3 and 4 more. 3 + 4 = 7. The answer is 7.", "7")
    assert apple.output == PLAIN_CASES["apple"][0]
    assert (pear.rationale, pear.answer, pear.gold) == ("", "12", "7")
    assert pear.output == PLAIN_CASES["pear"][0]


def second_phase_engine(shown: dict[str, str]) -> ScriptedEngine:
    """Wrong without the hint; with it, by name."""

    def answer(prompt: str) -> str | Generation:
        asked = prompt.rpartition("Q: ")[2]
        return by_name(dict(shown))(asked) if "The correct answer is" in asked else " 3 * 4 = 12. The answer is 12."

    return ScriptedEngine(answer)


SHOWN_CASES = {
    "apple": (" He has 3 and 4 more. 3 + 4 = 7. The answer is 7.", "kept"),
    "pear": (" The answer is 7.", "only restates the answer"),
    "plum": (
        " (The correct answer is 7.) He has 3 and 4 more. The answer is 7.",
        "speaks of the answer that it was shown",
    ),
    "lemon": (" 3 + 4 must be the given answer. The answer is 7.", "speaks of the answer that it was shown"),
    "fig": (" 3 * 4 = 12. The answer is 12.", "wrong answer"),
}


def test_what_was_wrong_is_asked_again_with_the_answer_shown(tmp_path: Path) -> None:
    engine = second_phase_engine({name: answer for name, (answer, _) in SHOWN_CASES.items()})
    questions = [problem(name) for name in SHOWN_CASES]
    store = new_store(tmp_path)
    summary = write(questions, store, engine)
    second = {key[0]: attempt for key, attempt in store.attempts().items() if key[1] == "gold_shown"}
    assert {each.question_id: each.outcome for each in second.values()} == {n: o for n, (_, o) in SHOWN_CASES.items()}
    assert (summary.asked, summary.kept) == (10, 1)
    assert summary.dropped == Counter(outcome for _, outcome in SHOWN_CASES.values() if outcome != "kept")
    assert engine.prompts[5:] == [rationale_prompt(question, shots=2, gold_shown=True) for question in questions]
    assert engine.calls == [5, 5], "one stream a phase, whatever the piece"
    assert [commit.counts["records"] for commit in store.space.commits()] == [4, 1, 4, 1]
    kept = kept_rationales(questions, store, SETTINGS)
    assert [(each.question.id, each.phase) for each in kept] == [("apple", "gold_shown")]


def test_the_second_phase_is_left_out_on_request_and_made_up_for_later(tmp_path: Path) -> None:
    engine = second_phase_engine({"apple": SHOWN_CASES["apple"][0]})
    store, questions, plain_only = new_store(tmp_path), [problem("apple")], replace(SETTINGS, second_phase=False)
    assert write(questions, store, engine, plain_only).dropped == {"wrong answer": 1}
    later = write(questions, store, engine)
    assert (later.found, later.asked, later.kept) == (1, 1, 1)
    assert kept_rationales(questions, store, plain_only) == []


@pytest.mark.parametrize("outcome", ["kept", "prompt too long"])
def test_the_second_phase_asks_nothing_that_it_cannot_improve(tmp_path: Path, outcome: str) -> None:
    answers = {name: answer for name, (answer, each) in PLAIN_CASES.items() if each == outcome}
    engine = ScriptedEngine(by_name(answers))
    write([problem(name) for name in answers], new_store(tmp_path), engine)
    assert len(engine.prompts) == len(answers) == 1


@pytest.mark.parametrize("output", [" The answer is 7.", "7", " So the final answer is: 7", "#### 7"])
def test_a_bare_answer_is_no_rationale_and_is_not_asked_again(tmp_path: Path, output: str) -> None:
    engine = ScriptedEngine(lambda prompt: output)
    assert write([problem("apple")], new_store(tmp_path), engine).dropped == {"only restates the answer": 1}
    assert len(engine.prompts) == 1


def test_words_about_an_answer_are_no_leak_where_none_was_shown(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda prompt: " 3 + 4 must be the given answer. The answer is 7.")
    assert write([problem("apple")], new_store(tmp_path), engine).kept == 1


def test_the_order_of_kept_rationales_is_that_of_the_questions(tmp_path: Path) -> None:
    questions = [problem(name) for name in ("one", "two", "three", "four", "five", "six")]
    store = new_store(tmp_path)
    write(questions, store, ScriptedEngine(right))
    backwards = questions[::-1]
    assert [each.question for each in kept_rationales(backwards, store, SETTINGS)] == backwards


def test_equal_questions_are_asked_once_and_each_gets_the_rationale(tmp_path: Path) -> None:
    engine, store = ScriptedEngine(right), new_store(tmp_path)
    questions = [problem("apple"), problem("pear"), problem("apple")]
    summary = write(questions, store, engine)
    assert (len(engine.prompts), summary.kept) == (2, 2)
    assert [each.question.id for each in kept_rationales(questions, store, SETTINGS)] == ["apple", "pear", "apple"]


def test_a_second_run_finds_everything_and_starts_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [problem(name) for name in PLAIN_CASES]
    store = new_store(tmp_path)
    first = write(questions, store, ScriptedEngine(by_name({name: case[0] for name, case in PLAIN_CASES.items()})))
    monkeypatch.setattr(stages.rationales.write, "open_engine", lambda *_: pytest.fail("an engine was started"))
    commits = len(store.space.commits())
    again = write(questions, store, None)
    assert again == replace(first, asked=0, found=first.asked)
    assert len(store.space.commits()) == commits


def test_an_engine_is_started_once_with_the_settings_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, started = ScriptedEngine(right), []

    def start(name: str, setup: EngineSetup) -> Engine:
        started.append((name, setup))
        return engine

    monkeypatch.setattr(stages.rationales.write, "open_engine", start)
    settings = replace(SETTINGS, max_tokens=17, engine_arguments={"max_model_len": 99}, temperature=0.5, seed=3)
    write([problem(str(number)) for number in range(9)], new_store(tmp_path, settings), None, settings)
    [(name, setup)] = started
    assert (name, setup.model, setup.revision) == ("transformers", "owner/teacher", "0" * 40)
    assert (setup.decoding.max_tokens, setup.decoding.temperature, setup.decoding.seed) == (17, 0.5, 3)
    assert (setup.decoding.stop, setup.arguments) == (("\n\n", "\nQ:"), {"max_model_len": 99})
    assert (engine.calls, engine.closed) == ([9], True)


def test_an_engine_that_fails_is_closed_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine(right, fails_after=0)
    monkeypatch.setattr(stages.rationales.write, "open_engine", lambda *_: engine)
    with pytest.raises(EngineError):
        write([problem("apple")], new_store(tmp_path), None)
    assert engine.closed


def half_right(prompt: str) -> str:
    """Wrong for every other question, until the answer is shown."""
    asked = prompt.rpartition("Q: ")[2]
    odd = int(asked.split("Tom has 3 n")[1].split("s ")[0]) % 2
    return right(prompt) if not odd or "correct answer" in asked else " 3 * 4 = 12. The answer is 12."


NUMBERED = [problem(f"n{number}") for number in range(14)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[AttemptName, Attempt]:
    store = new_store(tmp_path_factory.mktemp("undisturbed"))
    write(NUMBERED, store, ScriptedEngine(half_right))
    return dict(store.attempts())


@pytest.mark.parametrize("survives", range(21))
def test_a_run_that_failed_anywhere_continues_to_the_same_store(
    tmp_path: Path, survives: int, undisturbed: dict[AttemptName, Attempt]
) -> None:
    """14 questions and 7 second attempts; whatever was answered before the failure is committed."""
    store, failing, second = (
        new_store(tmp_path),
        ScriptedEngine(half_right, fails_after=survives, backwards=survives % 2 == 1),
        ScriptedEngine(half_right),
    )
    with pytest.raises(EngineError, match=f"after {survives} prompts"):
        write(NUMBERED, store, failing)
    assert len(store.attempts()) == len(failing.prompts)
    summary = write(NUMBERED, store, second)
    assert len(failing.prompts) + len(second.prompts) == 21
    assert not set(failing.prompts) & set(second.prompts)
    assert store.attempts() == undisturbed
    assert (summary.found, summary.asked, summary.kept) == (len(failing.prompts), len(second.prompts), 14)


class Signalled(ScriptedEngine):
    """Sends SIGTERM with an answer, as a batch system does, and may die of it a little later."""

    def __init__(self, answer: Answer, *, at: int, dies_after: int | None = None) -> None:
        super().__init__(answer)
        self.at = at
        self.dies_after = dies_after

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        for each in super().stream(prompts, decoding):
            if len(self.prompts) == self.at:
                signal.raise_signal(signal.SIGTERM)
                if self.dies_after is not None:
                    raise EngineError("gone")
            yield each


@pytest.mark.parametrize("at", [1, 4, 5, 14, 15, 21])
def test_after_a_signal_what_was_answered_is_committed_and_nothing_more_is_asked(
    tmp_path: Path, at: int, undisturbed: dict[AttemptName, Attempt]
) -> None:
    store, engine = new_store(tmp_path), Signalled(half_right, at=at)
    with StopSignal() as stop, pytest.raises(Interrupted, match="SIGTERM after saving"):
        write(NUMBERED, store, engine, stop=stop)
    assert len(engine.prompts) == len(store.attempts()) == at
    second = ScriptedEngine(half_right)
    write(NUMBERED, store, second)
    assert not set(engine.prompts) & set(second.prompts) and len(second.prompts) == 21 - at
    assert store.attempts() == undisturbed


def test_an_engine_that_a_signal_took_along_counts_as_stopped_and_not_as_failed(tmp_path: Path) -> None:
    """A batch system signals every process of a job, vLLM's own among them."""
    store = new_store(tmp_path)
    with StopSignal() as stop, pytest.raises(Interrupted):
        write(NUMBERED, store, Signalled(half_right, at=7, dies_after=0), stop=stop)
    assert len(store.attempts()) == 6, "the seventh was not handed over"


class Patient(ScriptedEngine):
    """Goes on after `waits_after` answers only once something is committed."""

    def __init__(self, answer: Answer, store: RationaleStore, *, waits_after: int) -> None:
        super().__init__(answer)
        self.store = store
        self.waits_after = waits_after
        self.seen = 0

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        for number, each in enumerate(super().stream(prompts, decoding)):
            if number == self.waits_after:
                deadline = time.monotonic() + 20
                while not self.store.space.commits() and time.monotonic() < deadline:
                    time.sleep(0.01)
                self.seen = sum(commit.counts["records"] for commit in self.store.space.commits())
            yield each


def test_a_full_piece_is_committed_while_the_stream_goes_on(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    engine = Patient(right, store, waits_after=4)
    write(NUMBERED, store, engine)
    assert (engine.seen, engine.calls) == (4, [14])


def test_a_piece_that_is_not_full_is_committed_when_its_time_is_up(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    engine = Patient(right, store, waits_after=2)
    write(NUMBERED, store, engine, replace(SETTINGS, piece=1000, commit_minutes=1e-9))
    assert engine.seen >= 1


def test_on_a_full_disk_nothing_more_is_asked_and_what_is_committed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, engine = new_store(tmp_path), ScriptedEngine(right)
    append, appended = RationaleStore.append, []

    def once(self: RationaleStore, attempts: Sequence[Attempt]) -> object:
        if appended:
            raise OSError(errno.ENOSPC, "No space left on device")
        appended.append(len(attempts))
        return append(self, attempts)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(RationaleStore, "append", once)
        write([problem(f"n{number}") for number in range(400)], store, engine)
    assert len(store.attempts()) == 4
    assert len(engine.prompts) < 400
    assert write(NUMBERED, store, ScriptedEngine(right)).found == 4


def test_of_more_questions_only_the_new_ones_are_asked(tmp_path: Path) -> None:
    questions = synthetic_questions(110, seed=1, split="train")
    answers = {rationale_prompt(q, shots=2): f" {q.reference} {answer_sentence(q, q.answer or '')}" for q in questions}
    store, engine, later = new_store(tmp_path), ScriptedEngine(answers.__getitem__), ScriptedEngine(answers.__getitem__)
    settings = replace(SETTINGS, piece=32)
    assert write(questions[:60], store, engine, settings).kept == 60
    summary = write(questions, store, later, settings)
    assert later.prompts == [rationale_prompt(question, shots=2) for question in questions[60:]]
    assert (summary.found, summary.asked, summary.kept) == (60, 50, 110)


def test_other_settings_of_the_prompt_ask_anew(tmp_path: Path) -> None:
    store, engine = new_store(tmp_path), ScriptedEngine(right)
    write([problem("apple")], store, engine)
    assert plan_rationales([problem("apple")], store.attempts(), replace(SETTINGS, shots=3)).to_do == 1
    assert plan_rationales([problem("apple")], store.attempts(), SETTINGS).to_do == 0


def test_a_plan_counts_without_asking(tmp_path: Path) -> None:
    store, failing = new_store(tmp_path), ScriptedEngine(half_right, fails_after=18)
    with pytest.raises(EngineError):
        write(NUMBERED, store, failing)
    plan = plan_rationales([*NUMBERED, problem("n99")], store.attempts(), SETTINGS)
    assert (plan.found, plan.kept, dict(plan.dropped), plan.to_do) == (18, 11, {}, 4)
    assert {phase: len(pending) for phase, pending in plan.pending.items()} == {"plain": 1, "gold_shown": 3}
    assert (plan.rationales, plan.repeated) == (11, 0)


def test_chat_models_get_their_template_and_no_stop_strings(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    tokenizer.save_pretrained(tmp_path / "model")
    identity = ModelIdentity(source="folder", path=str(tmp_path / "model"), revision="0" * 64, tokenizer="1" * 64)
    settings = replace(SETTINGS, chat=True, shots=0)
    engine = ScriptedEngine(right)
    question = replace(problem("apple"), text="Tom has {{ 3 }} apples {% and %} buys 4 more. How many?")
    write([question], new_store(tmp_path, settings), engine, settings, identity=identity)
    assert engine.prompts[0].endswith(f"[user]{question.text}[assistant]")
    setup = stages.rationales.write.engine_setup(TEACHER, settings, identity)
    assert (setup.decoding.stop, setup.adds_special_tokens) == ((), False)


def test_imported_rationales_are_judged_like_others(tmp_path: Path) -> None:
    file = tmp_path / "rationales.jsonl"
    file.write_text(
        '{"id": "apple", "rationale": "He has 3 and 4 more. 3 + 4 = 7.", "answer": "7"}\n'
        '{"id": "pear", "rationale": "He has 3 times 4.", "answer": "12"}\n'
        '{"id": "other", "rationale": "Not asked for.", "answer": "1"}\n'
    )
    settings = RationaleSettings(engine="file", path=str(file))
    store, questions = new_store(tmp_path, settings), [problem("apple"), problem("pear"), problem("plum")]
    summary = write(questions, store, None, settings)
    assert summary.dropped == {"wrong answer": 1, "no rationale in the file": 1}
    [kept] = kept_rationales(questions, store, settings)
    assert (kept.text, kept.phase) == ("He has 3 and 4 more. 3 + 4 = 7. The answer is 7.", "imported")
    assert write(questions, store, None, settings) == replace(summary, asked=0, found=3)


def test_a_file_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rationales\.path: there is no file"):
        new_store(tmp_path, RationaleSettings(engine="file", path=str(tmp_path / "none.jsonl")))


@given(st.text(max_size=80), st.sampled_from(["stop", "length"]), st.sampled_from(["plain", "gold_shown"]))
@hypothesis_settings(max_examples=200, deadline=None)
def test_any_output_has_an_outcome_and_only_the_gold_answer_is_kept(text: str, reason: str, phase: str) -> None:
    outcome, answer = judge(problem("apple"), Generation(text=text, finish_reason=reason), phase)  # type: ignore[arg-type]
    assert outcome and (outcome != "kept" or answer == "7")
    assert reason == "stop" or outcome in ("cut off at max_tokens", "empty")


def test_all_svamp_questions_go_through_prompt_engine_and_parser(tmp_path: Path, benchmark_data: Path) -> None:
    """The script is right for three questions in four, and with the answer shown for four fifths of the rest."""
    sources = [
        DataSource(name="svamp", path=str(benchmark_data / "svamp" / f"chilled_{split}.jsonl"))
        for split in ("train", "test")
    ]
    questions = [question for source in sources for question in read_questions(source)]
    script: dict[str, str] = {}
    for number, question in enumerate(questions):
        good = f" We work it out step by step. {answer_sentence(question, question.answer or '')}"
        script[rationale_prompt(question, shots=4)] = good if number % 4 else " We guess. The answer is 123456."
        script[rationale_prompt(question, shots=4, gold_shown=True)] = good if number % 5 else f" {hint(question)}"
    settings = RationaleSettings(engine="transformers", shots=4, piece=256)
    engine, store = ScriptedEngine(script.__getitem__), new_store(tmp_path, settings)
    summary = write(questions, store, engine, settings)
    assert (len(questions), summary.asked, summary.kept) == (1000, 1250, 950)
    assert summary.dropped == {"only restates the answer": 50}
    assert engine.calls == [1000, 250]
    kept = kept_rationales(questions, store, settings)
    assert Counter(each.phase for each in kept) == {"plain": 750, "gold_shown": 200}
    assert all(each.text.endswith(answer_sentence(each.question, each.answer)) for each in kept)


PALM = {
    # 733 of 1,000 are right, as its publishers count; for 41 PaLM gave no expression, hence no answer.
    "svamp": (
        ("svamp/chilled_train.jsonl", "svamp/chilled_test.jsonl"),
        {"kept": 733, "wrong answer": 226, "no rationale in the file": 41},
    ),
    # Its publishers compare the texts of the choices letter by letter and count 8,177 right. We read 119 more as right:
    # 112 differ in capitals alone ("Tennessee"), 7 end in a comma or "and" ("trunk,"). None goes the other way.
    # No answer is found where PaLM names what is no choice ("bookshop") or hangs between two ("refrigerator or").
    "commonsenseqa": (
        ("commonsenseqa/train_rand_split.jsonl", "commonsenseqa/dev_rand_split.jsonl"),
        {"kept": 8296, "wrong answer": 2350, "no answer found": 313, "no rationale in the file": 3},
    ),
}


@pytest.mark.parametrize(
    ("name", "file", "fields"),
    [
        ("svamp", "svamp_palm_joined", RationaleFields(id="ID", rationale="palm_rationale", answer="palm_value")),
        ("commonsenseqa", "cqa_palm_joined", RationaleFields(rationale="palm_rationale", answer="palm_label")),
    ],
)
def test_published_rationales_are_imported_and_counted(
    tmp_path: Path, benchmark_data: Path, name: Literal["svamp", "commonsenseqa"], file: str, fields: RationaleFields
) -> None:
    files, expected = PALM[name]
    sources = [DataSource(name=name, path=str(benchmark_data / path)) for path in files]
    questions = [question for source in sources for question in read_questions(source)]
    path = benchmark_data / "palm_rationales" / f"{file}.jsonl"
    settings = RationaleSettings(engine="file", path=str(path), fields=fields, piece=4096)
    store = new_store(tmp_path, settings)
    summary = write(questions, store, None, settings)
    assert {"kept": summary.kept, **summary.dropped} == expected
    kept = kept_rationales(questions, store, settings)
    assert len(kept) == summary.kept
    assert all(parse_answer(each.text, each.question) == each.question.answer for each in kept)


def test_published_outputs_whose_answer_is_a_calculation_are_kept(tmp_path: Path, benchmark_data: Path) -> None:
    """PaLM's outputs as published end in "The answer is (84 / 2)."; of 520 right ones of the split's training half one
    goes, whose calculation goes on behind the part that its publishers read: "(31 * 6) / 19"."""
    questions = read_questions(DataSource(name="svamp", path=str(benchmark_data / "svamp" / "chilled_train.jsonl")))
    path = benchmark_data / "palm_rationales" / "svamp_palm_joined.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    right = {row["ID"] for row in rows if row["palm_correct"] and row["chilled_split"] == "train"}
    settings = RationaleSettings(
        engine="file", path=str(path), fields=RationaleFields(id="ID", rationale="palm_output"), piece=4096
    )
    store = new_store(tmp_path, settings)
    write(questions, store, None, settings)
    kept = {each.question.id for each in kept_rationales(questions, store, settings)}
    assert (len(right), len(kept & right)) == (520, 519)


def test_samples_of_a_real_engine_differ_and_more_of_them_change_no_other(tmp_path: Path) -> None:
    """A random model is never right; what it wrote is compared."""
    folder = tiny_model_folder(tmp_path / "model", "llama")
    teacher = TeacherSettings(model=str(folder), dtype="float32", device="cpu")
    identity = identify_model(str(folder), None)
    two = RationaleSettings(
        engine="transformers", shots=0, max_tokens=12, temperature=1.0, samples=2, second_phase=False
    )
    outputs: list[dict[AttemptName, str]] = []
    for name, runs in (("grown", (two, replace(two, samples=4))), ("at once", (replace(two, samples=4),))):
        store = new_store(tmp_path / name, two)
        for settings in runs:
            write_rationales(
                NUMBERED[:3], store, teacher, settings,
                identity=identity, progress=SilentProgress(), stop=StopSignal(),
            )  # fmt: skip
        outputs.append({name: attempt.output for name, attempt in store.attempts().items()})
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == len(set(outputs[0].values())) == 12


@pytest.mark.vllm
def test_the_real_engine_writes_rationales_that_are_committed(tmp_path: Path) -> None:
    """A random model explains nothing; that its outputs arrive, are judged and committed is what can be seen here."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    folder = tiny_model_folder(tmp_path / "model", "llama", hidden=128)
    teacher = TeacherSettings(model=str(folder), dtype="float32", device="cpu")
    settings = RationaleSettings(engine="vllm", shots=0, max_tokens=32, piece=4)
    identity = identify_model(str(folder), None)
    questions = [problem(f"n{number}") for number in range(7)] + [problem("x" * 1100)]
    store = new_store(tmp_path, settings)
    summary = write_rationales(
        questions, store, teacher, settings, identity=identity, progress=SilentProgress(), stop=StopSignal()
    )
    attempts = store.attempts()
    assert summary.dropped == {"cut off at max_tokens": 7, "prompt too long": 1}
    assert (len(attempts), len(store.space.commits())) == (15, 4)
    assert all(len(each.output) == 32 for each in attempts.values() if each.outcome != "prompt too long")


def test_rounds_between_which_an_engine_does_something_else_grow_with_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages.rationales.write, "BETWEEN", 4)
    store, seen = new_store(tmp_path), list[int]()
    after = After(use=lambda _: seen.append(len(store.attempts())), extension="")
    write([problem(f"box{number}") for number in range(40)], store, ScriptedEngine(right), after=after)
    assert seen == [4, 8, 12, 16, 20, 25, 31, 38, 40]  # 4, or a quarter
