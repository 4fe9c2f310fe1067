"""`rationales.as_student`: a mentor, which is a student of an earlier run, is asked as it was trained to be."""

from dataclasses import replace
from pathlib import Path

from cache.fingerprints import fingerprint
from data.prompts import explain_prompt
from stages.models.lengths import prompt_lengths
from stages.rationales.spec import rationale_spec
from stages.rationales.write import kept_rationales, plan_rationales, standing_spec
from tests.fakes import ScriptedEngine, tiny_tokenizer
from tests.stages.rationales.test_write import IDENTITY, SETTINGS, TEACHER, new_store, problem, write

MENTOR = replace(SETTINGS, as_student=True, shots=0, second_phase=False)
QUESTIONS = [problem("fig"), problem("pear")]
RIGHT = "3 and 4 make 7. The answer is 7."


def test_it_is_asked_by_the_prompt_of_students(tmp_path: Path) -> None:
    engine, store = ScriptedEngine(lambda _: RIGHT), new_store(tmp_path, MENTOR)
    summary = write(QUESTIONS, store, engine, MENTOR)
    assert sorted(engine.prompts) == sorted(explain_prompt(question.text) for question in QUESTIONS)
    assert engine.prompts[0] == "explain: Tom has 3 figs and buys 4 more. How many figs has he?\n"
    assert summary.kept == 2
    assert {rationale.text for rationale in kept_rationales(QUESTIONS, store, MENTOR)} == {RIGHT}
    again = ScriptedEngine(lambda _: RIGHT)
    write(QUESTIONS, store, again, MENTOR)
    assert not again.prompts


def test_what_is_wrong_is_dropped_and_not_asked_again_with_the_answer(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda prompt: RIGHT if "pear" in prompt else "3 and 4 make 8. The answer is 8.")
    store = new_store(tmp_path, MENTOR)
    write(QUESTIONS, store, engine, MENTOR)
    plan = plan_rationales(QUESTIONS, store.attempts(), MENTOR)
    assert len(engine.prompts) == 2 and (plan.kept, dict(plan.dropped), plan.to_do) == (1, {"wrong answer": 1}, 0)


def test_each_sample_is_asked_for_and_those_that_differ_are_kept(tmp_path: Path) -> None:
    several = replace(MENTOR, samples=3, temperature=0.7)
    texts = iter([RIGHT, "4 and 3 make 7. The answer is 7.", RIGHT])
    store = new_store(tmp_path, several)
    engine = ScriptedEngine(lambda _: next(texts))
    write(QUESTIONS[:1], store, engine, several)
    assert len(engine.prompts) == 3 and set(engine.prompts) == {explain_prompt(QUESTIONS[0].text)}
    assert len(kept_rationales(QUESTIONS[:1], store, several)) == 2


def test_it_has_a_store_of_its_own_and_others_keep_theirs() -> None:
    plain, mentor = replace(MENTOR, as_student=False), MENTOR
    specs = [rationale_spec(IDENTITY, TEACHER, settings) for settings in (plain, mentor)]
    assert "as_student" not in specs[0] and specs[1] == {**specs[0], "as_student": True}
    assert fingerprint(specs[0]) != fingerprint(specs[1])
    assert standing_spec(plain) != standing_spec(mentor)


def test_prompts_are_measured_as_they_are_asked() -> None:
    assert prompt_lengths(tiny_tokenizer(), QUESTIONS, asked=MENTOR) == [
        len(explain_prompt(question.text)) for question in QUESTIONS
    ]
