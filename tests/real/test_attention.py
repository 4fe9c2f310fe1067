"""Attention and tokens of a real model: what random weights and one token a byte cannot show."""

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.records import Marked
from stages.attention.stepwise import attention_implementation, stepwise_attention
from stages.attention.tokens import locate

pytestmark = pytest.mark.real
LAYERS = 30


def eager_reference(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, record: Marked) -> np.ndarray:
    """Eq. 2 as written, of the eager attention matrix averaged over heads: (L, S, K)."""
    one = locate(tokenizer, record)
    with torch.no_grad(), attention_implementation(model, "eager"):
        layers = model(torch.tensor(one.ids)[None], output_attentions=True, use_cache=False).attentions
    steps = [np.flatnonzero(one.step_of_token == step) for step in range(one.steps)]
    matrices = [attention[0].double().mean(dim=0).numpy() for attention in layers]
    return np.array([[[matrix[np.ix_(s, k)].sum() for k in one.tokens_of_word] for s in steps] for matrix in matrices])


def test_equals_eager_attention_on_all_layers(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: dict[str, list[Marked]]
) -> None:
    records = [*texts["svamp"][:4], *texts["gsm8k"][:4]]
    for record, got in zip(records, stepwise_attention(teacher, tokenizer, records, begins=False), strict=True):
        expected = eager_reference(teacher, tokenizer, record)
        assert got.shape == expected.shape == (LAYERS, len(record.step_spans), len(record.critical_spans))
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)
        assert expected.max() > 0.5


def test_a_number_that_opens_a_text_is_not_looked_at_for_being_the_first_token(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: dict[str, list[Marked]]
) -> None:
    """Its tokenizer puts nothing in front of a text, and what stands there gets most of all later tokens' attention."""
    records = [record for record in texts["svamp"] if record.critical_spans and record.critical_spans[0][0] == 0][:4]
    assert len(records) == 4
    begun, plain = (stepwise_attention(teacher, tokenizer, records, begins=begins) for begins in (True, False))
    for one, other in zip(begun, plain, strict=True):
        largest, without = one.mean(axis=0)[:, 0].max(), other.mean(axis=0)[:, 0].max()
        assert without > 4 > 2.5 > largest


@pytest.mark.parametrize("name", ["svamp", "gsm8k"])
def test_tokens_of_words_and_steps_spell_them(
    tokenizer: PreTrainedTokenizerBase, texts: dict[str, list[Marked]], name: str
) -> None:
    """Each digit is a token here, and so is the blank in front of a number, which belongs to no step.

    A word's tokens may hold a sign beside it: of "4*.5", whose words are 4 and .5, "*." is one token.
    """
    words = exact = 0
    for record in texts[name]:
        one = locate(tokenizer, record)
        assert tokenizer.decode(one.ids) == record.text
        for (start, end), covered in zip(record.critical_spans, one.tokens_of_word, strict=True):
            word, spelled = record.text[start:end], tokenizer.decode(one.ids[covered]).strip()
            assert word in spelled and len(spelled) <= len(word) + 2
            words, exact = words + 1, exact + (word == spelled)
        for step, (start, end) in enumerate(record.step_spans):
            spelled = tokenizer.decode(one.ids[one.step_of_token == step])
            assert without_blanks(spelled) == without_blanks(record.text[start:end])
    assert words > 2 * len(texts[name]) == 400
    assert exact > 0.99 * words


def without_blanks(text: str) -> str:
    return "".join(text.split())
