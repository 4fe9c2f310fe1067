"""Steps and words as token sets, checked by hand on a tokenizer with one token a byte."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.errors import ModelError
from data.marking import mark
from data.records import Marked
from stages.attention import tokens
from stages.attention.tokens import Located, encode, encode_all, locate, padded_ids, pooling, token_counts
from stages.models.tokenizer import begin_token
from tests.fakes import tiny_tokenizer


def marked(question: str, rationale: str, steps: tuple, words: tuple) -> Marked:
    return Marked(
        question=question,
        rationale=rationale,
        text=f"{question}\n{rationale}",
        step_spans=steps,
        critical_spans=words,
    )


def test_tokens_fall_into_the_steps_and_words_of_their_characters():
    one = locate(tiny_tokenizer(), marked("a 12", "b 3", ((0, 4), (5, 8)), ((2, 4), (7, 8))))
    # characters:                  a   ␣  1  2  \n  b   ␣  3
    assert one.step_of_token.tolist() == [0, -1, 0, 0, -1, 1, -1, 1]
    assert [tokens.tolist() for tokens in one.tokens_of_word] == [[2, 3], [7]]
    assert one.step_tokens().tolist() == [3, 2]


def test_a_prefix_and_a_begin_token_belong_to_no_step_and_no_word():
    tokenizer = tiny_tokenizer(adds_begin=True)
    one = locate(tokenizer, marked("a 1", "b", ((0, 3), (4, 5)), ((2, 3),)), prefix="x: ")
    assert one.step_of_token.tolist() == [-1, -1, -1, -1, 0, -1, 0, -1, 1]
    assert one.tokens_of_word[0].tolist() == [6]


def test_a_token_in_front_belongs_to_no_step_and_no_word_and_changes_no_other():
    tokenizer, record = tiny_tokenizer(), marked("12 a", "b 3", ((0, 4), (5, 8)), ((0, 2), (7, 8)))
    begin = begin_token(tokenizer)
    plain, one = locate(tokenizer, record), locate(tokenizer, record, begin=begin)
    assert begin == tokenizer.bos_token_id and one.ids.tolist() == [begin, *plain.ids]
    assert one.is_special().tolist() == [True] + [False] * len(plain.ids)
    assert one.step_of_token.tolist() == [-1, *plain.step_of_token]
    assert [tokens.tolist() for tokens in one.tokens_of_word] == [[1, 2], [8]]


def test_the_begin_token_is_the_tokenizers_own_where_it_has_one_and_none_where_it_puts_it_there_itself():
    tokenizer = tiny_tokenizer()
    assert begin_token(tokenizer) == tokenizer.bos_token_id != tokenizer.eos_token_id
    tokenizer.bos_token = None
    assert begin_token(tokenizer) == tokenizer.eos_token_id
    assert begin_token(tiny_tokenizer(adds_begin=True)) is None


def test_every_byte_of_a_character_belongs_to_the_word_that_holds_it():
    one = locate(tiny_tokenizer(), marked("é1", "b", ((0, 2), (3, 4)), ((0, 2),)))
    assert one.tokens_of_word[0].tolist() == [0, 1, 2]
    assert one.step_of_token[:3].tolist() == [0, 0, 0]


def test_text_that_looks_like_a_special_token_stays_text():
    tokenizer = tiny_tokenizer()
    one = locate(tokenizer, marked(f"a {tokenizer.eos_token} 1", "b", ((0, 8), (9, 10)), ((7, 8),)))
    assert tokenizer.eos_token_id not in one.ids
    assert tokenizer.decode(one.ids[one.tokens_of_word[0]]) == "1"


def test_a_tokenizer_without_offsets_is_refused_by_name():
    class Slow:
        is_fast = False
        name_or_path = "some/model"

    with pytest.raises(ModelError, match=r"some/model.*offsets"):
        locate(Slow(), marked("a", "b", ((0, 1),), ()))


def test_pooling_marks_members_with_one_and_pads_with_zero():
    tokenizer = tiny_tokenizer()
    long = locate(tokenizer, marked("a 12", "b 3", ((0, 4), (5, 8)), ((2, 4), (7, 8))))
    short = locate(tokenizer, marked("1", "b", ((0, 1),), ((0, 1),)))
    pool = pooling([long, short], 8)
    assert pool.steps_BST.shape == (2, 2, 8)
    assert pool.words_BTK.shape == (2, 8, 2)
    assert pool.steps_BST[0, 0].tolist() == [1, 0, 1, 1, 0, 0, 0, 0]
    assert pool.words_BTK[0, :, 0].tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert pool.steps_BST[1].sum() == 1
    assert pool.words_BTK[1, :, 1].sum() == 0
    assert padded_ids([long, short], 2)[1].tolist()[3:] == [2] * 5


def test_receivers_are_what_words_share_the_special_tokens_and_sinks():
    tokenizer = tiny_tokenizer(adds_begin=True)
    long = locate(tokenizer, marked("a 12", "b 3", ((0, 4), (5, 8)), ((2, 4), (7, 8))))
    short = locate(tokenizer, marked("1", "b", ((0, 1),), ((0, 1),)))
    pool = pooling([long, short], 9, receivers=True)
    assert pool.sinks
    assert pool.words_BTK.shape == (2, 9, 4)
    assert pool.words_BTK[0, :, :2].T.tolist() == [[0, 0, 0, 1, 1, 0, 0, 0, 0], [0] * 8 + [1]]  # behind a begin token
    assert pool.words_BTK[0, :, 2].tolist() == [0] * 9
    assert pool.words_BTK[0, :, 3].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert pool.words_BTK[1, :, 1:].T.tolist() == [[0] * 9, [0] * 9, [1] + [0] * 8]
    assert sorted(pool.columns()[0][0].tolist()) == [0, 3, 4, 8]
    assert not pooling([long, short], 9).sinks


def test_a_token_counts_once_for_all_its_words_and_what_covers_nothing_is_special_unless_it_is_critical():
    one = Located(
        ids=np.arange(6),
        step_of_token=np.array([-1, 0, 0, 0, 0, -1]),
        tokens_of_word=(np.array([1, 2]), np.array([2, 3]), np.array([2, 3])),
        steps=1,
        text="",
        spans=np.array([[0, 0], [0, 2], [2, 4], [3, 3], [4, 5], [0, 0]]),
    )
    assert one.words_of_token().tolist() == [0, 1, 3, 2, 0, 0]
    assert one.is_special().tolist() == [True, False, False, False, False, True]
    pool = pooling([one], 7, receivers=True)
    weights = torch.tensor([[32.0, 1, 2, 4, 8, 16, 64]])
    first, second, third, shared, special = (weights @ pool.words_BTK[0])[0].tolist()
    assert (first, second, third, special) == (1 + 2, 2 + 4, 2 + 4, 32 + 16)
    assert first + second + third - shared == 1 + 2 + 4


@given(
    question=st.text(alphabet="ab 12.é\n", min_size=1, max_size=30).filter(str.strip),
    rationale=st.text(alphabet="ab 3,4.?", min_size=1, max_size=30).filter(str.strip),
)
def test_each_visible_token_has_one_step_and_words_spell_their_spans(question: str, rationale: str):
    record = mark(question, rationale)
    tokenizer = tiny_tokenizer()
    one = locate(tokenizer, record)
    visible = [not record.text[a:b].isspace() for a, b in one.spans.tolist()]
    assert (one.step_of_token[visible] >= 0).all()
    for (start, end), covered in zip(record.critical_spans, one.tokens_of_word, strict=True):
        assert tokenizer.decode(one.ids[covered]) == record.text[start:end]


@pytest.mark.parametrize("adds_begin", [False, True])
def test_counting_tokens_agrees_with_locating_them(adds_begin: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokens, "CHUNK", 3)
    tokenizer = tiny_tokenizer(adds_begin=adds_begin)
    records = [mark(f"Tom has {10**n} pens. <s>", "He has é " * n) for n in range(8)]
    counts = token_counts(tokenizer, [record.text for record in records])
    assert counts == [len(locate(tokenizer, record).ids) for record in records]
    assert token_counts(tokenizer, []) == []


def test_ids_are_integers_of_numpy():
    assert locate(tiny_tokenizer(), marked("a", "b", ((0, 1),), ())).ids.dtype == np.int64


def test_texts_have_the_same_tokens_together_as_each_by_itself():
    texts = ["a 12", "</s> 🦉\r\n", " ", "x" * 50]
    for tokenizer in (tiny_tokenizer(), tiny_tokenizer(adds_begin=True)):
        for (ids, spans), text in zip(encode_all(tokenizer, texts), texts, strict=True):
            alone = encode(tokenizer, text)
            np.testing.assert_array_equal(ids, alone[0], strict=True)
            np.testing.assert_array_equal(spans, alone[1], strict=True)
    assert encode_all(tiny_tokenizer(), []) == []


@given(text=st.text(alphabet=" \n\u3000ab🦉", max_size=20), spans=st.lists(st.tuples(*[st.integers(0, 20)] * 2)))
def test_the_first_visible_character_of_a_span_is_that_of_a_search_from_its_start(text: str, spans: list):
    inside = [(min(start, len(text)), min(end, len(text))) for start, end in spans]
    expected = [next((i for i in range(start, end) if not text[i].isspace()), -1) for start, end in inside]
    found = tokens._first_visible(text, np.array(inside, dtype=np.int64).reshape(-1, 2))
    assert found.tolist() == expected
