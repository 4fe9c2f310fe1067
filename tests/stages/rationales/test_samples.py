"""Several samples of each question: which count, which are the same, and that more of them ask for new ones only."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cache.rationales import RationaleStore
from data.errors import EngineError
from data.prompts import rationale_prompt
from stages.engines.contract import Answers, Decoding, Generation, prompt_seed, sample_seed
from stages.rationales.write import kept_rationales, plan_rationales
from tests.fakes import ScriptedEngine
from tests.stages.rationales.test_write import SETTINGS, TEACHER, new_store, problem, write

FOUR = replace(SETTINGS, temperature=0.7, seed=5, samples=4)
APPLE, PEAR = problem("apple"), problem("pear")


class SampledEngine(ScriptedEngine):
    """Answers by prompt and number of the sample, told by the seed, and remembers both."""

    def __init__(self, texts: dict[tuple[str, int], str], seed: int = 5, **options: int) -> None:
        super().__init__(lambda prompt: "", **options)
        self.texts = texts
        self.samples = {sample_seed(seed, sample): sample for sample in range(100)}
        self.asked: list[tuple[str, int, bool]] = []

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        assert decoding is not None and decoding.temperature == 0.7
        sample = self.samples[decoding.seed]
        for place, _ in super().stream(prompts, decoding):
            asked = prompts[place].rpartition("Q: ")[2]
            name = "apple" if "apple" in asked else "pear"
            self.asked.append((name, sample, "correct answer" in asked))
            yield place, Generation(text=self.texts.get((name, sample), RIGHT[sample % 3]), finish_reason="stop")


RIGHT = (
    " He has 3 and 4 more. The answer is 7.",
    " 3 + 4 = 7. The answer is 7.",
    " Four more than 3. The answer is 7.",
)
WRONG = " 3 * 4 = 12. The answer is 12."


def texts(store: RationaleStore, settings=FOUR, questions=(APPLE, PEAR)) -> list[tuple[str, str]]:  # type: ignore[no-untyped-def]
    return [(each.question.id, each.text) for each in kept_rationales(questions, store, settings)]


def test_the_first_sample_has_the_seed_itself_and_the_others_differ() -> None:
    assert sample_seed(5, 0) == 5
    assert sample_seed(5, 1) == prompt_seed(5, "sample 1")
    assert len({sample_seed(seed, sample) for seed in range(20) for sample in range(20)}) == 400


def test_all_samples_that_are_right_and_differ_are_kept(tmp_path: Path) -> None:
    store = new_store(tmp_path, FOUR)
    engine = SampledEngine({("apple", 2): WRONG, ("apple", 3): RIGHT[0].upper().replace(" ", "  ")})
    summary = write([APPLE, PEAR], store, engine, FOUR)
    assert texts(store) == [
        ("apple", "He has 3 and 4 more. The answer is 7."),
        ("apple", "3 + 4 = 7. The answer is 7."),
        ("pear", "He has 3 and 4 more. The answer is 7."),
        ("pear", "3 + 4 = 7. The answer is 7."),
        ("pear", "Four more than 3. The answer is 7."),
    ]
    assert (summary.asked, summary.kept, summary.dropped) == (8, 2, {})
    plan = plan_rationales([APPLE, PEAR], store.attempts(), FOUR)
    assert (plan.rationales, plan.repeated, plan.to_do) == (5, 2, 0)
    assert engine.calls == [2, 2, 2, 2], "a stream has one seed"


def test_more_samples_ask_for_the_new_ones_only_and_are_those_of_a_larger_run(tmp_path: Path) -> None:
    script = {("pear", sample): WRONG for sample in range(5)}
    eight = replace(FOUR, samples=8, second_phase=False)
    grown, at_once = new_store(tmp_path / "grown", FOUR), new_store(tmp_path / "at-once", eight)
    write([APPLE, PEAR], grown, SampledEngine(script), replace(FOUR, second_phase=False))
    more, whole = SampledEngine(script), SampledEngine(script)
    write([APPLE, PEAR], grown, more, eight)
    write([APPLE, PEAR], at_once, whole, eight)
    assert grown.space.path.name == at_once.space.path.name, "the number of samples makes no other space"
    assert sorted(more.asked) == [(name, sample, False) for name in ("apple", "pear") for sample in range(4, 8)]
    assert grown.attempts() == at_once.attempts()
    assert texts(grown, eight) == texts(at_once, eight)


def test_fewer_samples_count_the_first_ones_only(tmp_path: Path) -> None:
    store = new_store(tmp_path, FOUR)
    write([APPLE], store, SampledEngine({("apple", 0): WRONG}), FOUR)
    two = replace(FOUR, samples=2)
    assert texts(store, two, [APPLE]) == [("apple", "3 + 4 = 7. The answer is 7.")]
    assert plan_rationales([APPLE], store.attempts(), two).to_do == 0


def test_the_second_phase_asks_where_no_sample_was_right_and_as_many_times(tmp_path: Path) -> None:
    script = {("apple", sample): WRONG for sample in range(4)} | {("pear", 0): WRONG, ("pear", 3): WRONG}
    store, engine = new_store(tmp_path, FOUR), SampledEngine(script)
    write([APPLE, PEAR], store, engine, FOUR)
    assert [each for each in engine.asked if each[2]] == [("apple", sample, True) for sample in range(4)]
    assert [name for name, _ in texts(store)] == ["pear", "pear"]


def test_a_sample_that_is_right_in_the_end_takes_the_place_of_the_second_phase(tmp_path: Path) -> None:
    one = replace(FOUR, samples=1)
    store = new_store(tmp_path, one)

    class WithHint(SampledEngine):
        def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
            for place, generation in super().stream(prompts, decoding):
                shown = "correct answer" in prompts[place].rpartition("Q: ")[2]
                text = " Shown: 3 and 4 more. The answer is 7." if shown else generation.text
                yield place, Generation(text=text, finish_reason="stop")

    script = {("apple", 0): WRONG}
    write([APPLE], store, WithHint(script), one)
    assert [each.phase for each in kept_rationales([APPLE], store, one)] == ["gold_shown"]
    write([APPLE], store, WithHint(script), FOUR)
    assert [each.phase for each in kept_rationales([APPLE], store, FOUR)] == ["plain", "plain", "plain"]


def test_a_question_that_no_sample_could_answer_is_asked_once(tmp_path: Path) -> None:
    class TooLong(SampledEngine):
        def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
            for place, _ in super().stream(prompts, decoding):
                yield place, Generation(text="", finish_reason="too_long")

    store, engine = new_store(tmp_path, FOUR), TooLong({})
    summary = write([APPLE, problem("date", answer=None)], store, engine, FOUR)
    assert (len(engine.asked), summary.asked) == (1, 2)
    assert summary.dropped == {"prompt too long": 1, "no gold answer": 1}


@pytest.mark.parametrize("survives", range(12))
def test_a_run_of_samples_that_failed_anywhere_asks_nothing_twice(tmp_path: Path, survives: int) -> None:
    script = {("apple", sample): WRONG for sample in range(4)}
    undisturbed, store = new_store(tmp_path / "undisturbed", FOUR), new_store(tmp_path / "store", FOUR)
    write([APPLE, PEAR], undisturbed, SampledEngine(script), FOUR)
    failing, second = SampledEngine(script, fails_after=survives), SampledEngine(script)
    with pytest.raises(EngineError):
        write([APPLE, PEAR], store, failing, FOUR)
    write([APPLE, PEAR], store, second, FOUR)
    assert len(failing.asked) == survives and not set(failing.asked) & set(second.asked)
    assert store.attempts() == undisturbed.attempts()


def test_greedy_settings_have_one_sample_of_the_seed_that_is_set(tmp_path: Path) -> None:
    seen: list[Decoding | None] = []

    class Noting(ScriptedEngine):
        def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
            seen.append(decoding)
            return super().stream(prompts, decoding)

    write([APPLE], new_store(tmp_path), Noting(lambda prompt: RIGHT[0]), replace(SETTINGS, seed=11))
    assert [(one.seed, one.max_tokens, one.stop) for one in seen if one] == [
        (11, SETTINGS.max_tokens, ("\n\n", "\nQ:"))
    ]


@given(
    st.lists(st.lists(st.sampled_from([*RIGHT, WRONG, "", " The answer is 7."]), min_size=6, max_size=6), min_size=1)
)
@hypothesis_settings(max_examples=10, deadline=None)
def test_growing_a_run_step_by_step_ends_where_the_whole_does(
    tmp_path_factory: pytest.TempPathFactory, outputs: list[list[str]]
) -> None:
    script = {("apple", sample): text for sample, text in enumerate(outputs[0])}
    whole = replace(FOUR, samples=6)
    grown, at_once = (new_store(tmp_path_factory.mktemp("store"), whole) for _ in range(2))
    for samples in (1, 2, 6):
        write([APPLE], grown, SampledEngine(script), replace(whole, samples=samples))
    write([APPLE], at_once, SampledEngine(script), whole)
    assert texts(grown, whole, [APPLE]) == texts(at_once, whole, [APPLE])
    assert at_once.attempts().items() <= grown.attempts().items()


def test_prompts_of_all_samples_are_the_same(tmp_path: Path) -> None:
    engine = SampledEngine({})
    write([APPLE], new_store(tmp_path, FOUR), engine, FOUR)
    assert engine.prompts == [rationale_prompt(APPLE, shots=2)] * 4
    assert TEACHER.model == "teacher"
