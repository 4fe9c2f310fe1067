"""The demo's teacher: its tokenizer, its pace, and that what is saved is a plain model."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.errors import Interrupted
from data.prompts import rationale_prompt
from data.sets.synthetic import synthetic_questions
from stages.runtime.progress import SilentProgress, StopSignal
from stages.toy.teacher import ModelShape, Recipe, _Pace, share_solved, train_from_scratch, word_tokenizer

QUESTIONS = synthetic_questions(300, seed=0, split="train")
SHAPE = ModelShape(layers=1, width=32, heads=1, feed_forward=64)
RECIPE = Recipe(batch_size=4, learning_rate=1e-2, good_loss=0.5, most_steps=10, cooling_steps=4, warmup_steps=2, seed=0)


def train(out: Path, stop: StopSignal, recipe: Recipe = RECIPE) -> None:
    train_from_scratch(
        QUESTIONS, out, tokenizer=word_tokenizer(QUESTIONS), shape=SHAPE, recipe=recipe,
        progress=SilentProgress(), stop=stop,
    )  # fmt: skip


def test_words_and_numbers_are_one_token_each_and_every_text_comes_back():
    tokenizer = word_tokenizer(QUESTIONS)
    assert tokenizer.tokenize("Tom has 12 pens.") == ["Tom", "Ġhas", "Ġ12", "Ġpens", "."]
    for text in [question.text for question in QUESTIONS[:20]] + ["explain: Zürich 99\n"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_learning_rate_rises_stays_and_falls_to_zero_once_the_loss_is_good():
    pace, shares = _Pace(RECIPE), []
    while not pace.finished:
        shares.append(pace.share)
        pace.step(0.1 if pace.steps >= 2 else 20.0)  # running mean: 20, 20, then far above 0.5 until time is short
    assert shares == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert pace.steps == RECIPE.most_steps


def test_a_good_loss_ends_training_early():
    pace = _Pace(RECIPE)
    while not pace.finished:
        pace.step(0.4)
    assert pace.steps == 1 + RECIPE.cooling_steps


def test_the_running_mean_remembers_with_its_stated_weight():
    pace = _Pace(RECIPE)
    pace.step(1.0)
    pace.step(0.0)
    assert pace.loss == pytest.approx(_Pace.MEMORY)


def test_a_plain_model_with_its_tokenizer_comes_out(tmp_path: Path):
    with StopSignal() as stop:
        train(tmp_path, stop)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    prompt = tokenizer(rationale_prompt(QUESTIONS[0], shots=0), return_tensors="pt")
    assert model.generate(input_ids=prompt["input_ids"], max_new_tokens=2).shape[1] > prompt["input_ids"].shape[1]
    assert 0 <= share_solved(tmp_path, QUESTIONS[:5]) < 1


def test_a_signal_stops_it_and_leaves_no_half_teacher(tmp_path: Path):
    with StopSignal() as stop:
        stop._remember(StopSignal.SIGNALS[0], None)
        with pytest.raises(Interrupted):
            train(tmp_path / "teacher", stop)
    assert not (tmp_path / "teacher").exists()
