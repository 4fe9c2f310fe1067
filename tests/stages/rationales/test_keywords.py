"""Key words by the teacher: asked after the rationale, once, stored, and found again in the text."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cache.exchange.exporting import export_space
from cache.exchange.importing import import_space
from cache.rationales import RationaleStore
from cache.spaces import Space
from cache.verify import verify
from data.errors import EngineError
from data.keyword_prompts import MAX_TOKENS, keyword_prompt
from data.records import Question
from stages.engines.contract import Answers, Decoding, Generation, sample_seed
from stages.rationales.write import kept_rationales, plan_rationales
from stages.settings import RationaleSettings
from tests.fakes import ScriptedEngine
from tests.stages.rationales.test_write import SETTINGS, new_store, write

ASKING = replace(SETTINGS, keywords=True)
COLD = Question(
    id="cold",
    dataset="made-up",
    text="Where is ice cream kept?\nAnswer Choices:\n(A) oven\n(B) freezer",
    answer="B",
    answer_kind="choice",
    choices=("oven", "freezer"),
)
PEN = replace(COLD, id="pen", text=COLD.text.replace("ice cream", "a pen"), answer="A")
WRITTEN = " Ice cream melts when it is warm. The answer is (B) freezer."
RATIONALE = "Ice cream melts when it is warm. The answer is (B) freezer."


class KeywordEngine(ScriptedEngine):
    """Writes the same rationale for everything, and a list of key words where it is asked for one."""

    def __init__(self, named: str | Generation = " ice cream, freezer, snow", **options: int) -> None:
        super().__init__(lambda prompt: named if prompt.endswith("Key words:") else WRITTEN, **options)
        self.decodings: list[Decoding] = []

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        assert decoding is not None
        self.decodings.append(decoding)
        return super().stream(prompts, decoding)


def named(store: RationaleStore, settings: RationaleSettings = ASKING) -> list[tuple[str, ...]]:
    return [each.keywords for each in kept_rationales([COLD, PEN], store, settings)]


def test_key_words_are_asked_for_after_the_rationale_and_stored_with_what_was_asked(tmp_path: Path) -> None:
    store, engine = new_store(tmp_path), KeywordEngine()
    summary = write([COLD, PEN], store, engine, replace(ASKING, second_phase=False))
    assert engine.prompts[-1] == keyword_prompt(COLD.text, RATIONALE)
    assert (engine.calls, summary.asked, summary.kept) == ([2, 1], 3, 1)
    [attempt] = [each for each in store.attempts().values() if each.phase == "keywords"]
    assert (attempt.rationale, attempt.output) == (RATIONALE, " ice cream, freezer, snow")
    assert (attempt.keywords, attempt.outcome) == (("ice cream", "freezer"), "kept")
    assert named(store) == [("ice cream", "freezer")]


def test_key_words_are_decoded_greedily_whatever_the_rationales_are(tmp_path: Path) -> None:
    settings, engine = replace(ASKING, temperature=0.9, max_tokens=7), KeywordEngine()
    write([COLD], new_store(tmp_path, settings), engine, settings)
    rationale, keywords = engine.decodings
    assert (rationale.temperature, rationale.max_tokens) == (0.9, 7)
    assert (keywords.temperature, keywords.max_tokens) == (0, MAX_TOKENS)


def test_asking_for_key_words_later_leaves_the_rationales_alone(tmp_path: Path) -> None:
    store, later = new_store(tmp_path), KeywordEngine()
    write([COLD], store, KeywordEngine(), SETTINGS)
    assert named(store) == [()]
    plan = plan_rationales([COLD], store.attempts(), ASKING)
    assert (plan.to_do, plan.kept, plan.rationales, len(plan.pending["keywords"])) == (1, 0, 1, 1)
    summary = write([COLD], store, later, ASKING)
    assert later.prompts == [keyword_prompt(COLD.text, RATIONALE)]
    assert (summary.found, summary.asked, summary.kept) == (1, 1, 1)
    again = KeywordEngine()
    assert write([COLD], store, again, ASKING).asked == 0 and not again.prompts
    assert named(store, SETTINGS) == [()], "whoever does not ask for them does not get them"


def test_a_failure_between_rationale_and_key_words_asks_for_the_rest_only(tmp_path: Path) -> None:
    store, second = new_store(tmp_path), KeywordEngine()
    with pytest.raises(EngineError):
        write([COLD], store, KeywordEngine(fails_after=1), ASKING)
    write([COLD], store, second, ASKING)
    assert len(second.prompts) == 1 and named(store) == [("ice cream", "freezer")]


@pytest.mark.parametrize(
    ("output", "outcome", "words"),
    [
        (" snow, winter", "names no word of the text", ()),
        (" ", "empty", ()),
        (Generation(text="", finish_reason="too_long"), "prompt too long", ()),
        (Generation(text=" ice cream, free", finish_reason="length"), "kept", ("ice cream",)),
    ],
)
def test_a_list_that_names_nothing_has_its_reason_and_is_not_asked_for_again(
    tmp_path: Path, output: str | Generation, outcome: str, words: tuple[str, ...]
) -> None:
    store = new_store(tmp_path)
    summary = write([COLD], store, KeywordEngine(output), ASKING)
    [attempt] = [each for each in store.attempts().values() if each.phase == "keywords"]
    assert (attempt.outcome, attempt.keywords) == (outcome, words)
    assert named(store) == [words] and summary.kept == 1, "the rationale itself is kept"
    assert write([COLD], store, KeywordEngine(), ASKING).asked == 0


def test_the_rationale_of_the_second_phase_gets_key_words_too(tmp_path: Path) -> None:
    class OvenFirst(KeywordEngine):
        def _generation(self, prompt: str) -> Generation:
            if prompt.endswith("Key words:") or "correct answer" in prompt.rpartition("Q: ")[2]:
                return super()._generation(prompt)
            return Generation(text=" It is warm. The answer is (A) oven.", finish_reason="stop")

    store, engine = new_store(tmp_path), OvenFirst()
    write([COLD], store, engine, ASKING)
    assert engine.calls == [1, 1, 1]
    [kept] = kept_rationales([COLD], store, ASKING)
    assert (kept.phase, kept.keywords) == ("gold_shown", ("ice cream", "freezer"))


def test_each_of_several_samples_has_key_words_of_its_own(tmp_path: Path) -> None:
    settings = replace(ASKING, temperature=0.5, samples=3)

    class Sampled(KeywordEngine):
        @property
        def sample(self) -> int:
            return [sample_seed(0, sample) for sample in range(4)].index(self.decodings[-1].seed)

        def _generation(self, prompt: str) -> Generation:
            if not prompt.endswith("Key words:"):
                text = f" It is {('cold', 'dark', 'cold', 'dark')[self.sample]} there. The answer is (B) freezer."
                return Generation(text=text, finish_reason="stop")
            named = "cold" if "cold there" in prompt.rpartition("Q: ")[2] else "dark"
            return Generation(text=named, finish_reason="stop")

    store, engine = new_store(tmp_path, settings), Sampled()
    write([COLD], store, engine, settings)
    assert named(store, settings) == [("cold",), ("dark",)]
    assert engine.calls == [1, 1, 1, 2], "the third sample is the first one again"
    more = write([COLD], store, Sampled(), replace(settings, samples=4))
    assert (more.found, more.asked) == (5, 1), "the fourth is dark again, too"


def test_an_export_of_chosen_questions_takes_their_key_words_along(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    warm = replace(COLD, id="warm", text=COLD.text.replace("kept", "stored"))
    write([COLD, warm], store, KeywordEngine(), ASKING)
    assert verify(store.space.path).findings == ()
    key = next(each.key for each in store.attempts().values() if (each.question_id, each.phase) == ("warm", "plain"))
    export_space(store.space, str(tmp_path / "out"), keys=[key])
    theirs = RationaleStore(Space.open(import_space(str(tmp_path / "out"), tmp_path / "other").path))
    assert {(each.question_id, each.phase) for each in theirs.attempts().values()} == {
        ("warm", "plain"),
        ("warm", "keywords"),
    }
    assert [each.keywords for each in kept_rationales([warm], theirs, ASKING)] == [("ice cream", "freezer")]
