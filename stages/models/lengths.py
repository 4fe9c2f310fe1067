"""How many tokens the texts of a question have, before there is a rationale.

In: questions with an answer, and a tokenizer. Out: for each the number of tokens of what the teacher is asked, of its
record, and of the student's two texts. A record and an explanation are as long as if the teacher wrote nothing but the
answer; no real one is shorter.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from data.prompts import (
    answer_sentence,
    explain_prompt,
    predict_prompt,
    predict_target,
    rationale_messages,
    rationale_prompt,
)
from data.records import Question
from stages.models.tokenizer import begin_token, encode_chats, encode_data, render_chat
from stages.settings import RationaleSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokenizer: TypeAlias = "PreTrainedTokenizerBase"


def prompt_lengths(tokenizer: Tokenizer, questions: Sequence[Question], *, asked: RationaleSettings) -> list[int]:
    """Tokens of what the teacher is asked first."""
    if asked.as_student:
        return list(map(len, encode_data(tokenizer, [explain_prompt(each.text) for each in questions])))
    if not asked.chat:
        return list(map(len, encode_data(tokenizer, [rationale_prompt(each, shots=asked.shots) for each in questions])))
    told = (asked.template_arguments, asked.template_date)
    chats = [render_chat(tokenizer, rationale_messages(each, shots=asked.shots), *told) for each in questions]
    return list(map(len, encode_chats(tokenizer, chats)))


def record_lengths(tokenizer: Tokenizer, questions: Sequence[Question], *, begins: bool) -> list[int]:
    """Tokens of what the teacher's attention is recorded over, `begins` as in `attention.begin_token`."""
    more = int(begins and begin_token(tokenizer) is not None)
    texts = [f"{each.text}\n{_sentence(each)}" for each in questions]
    return [len(ids) + more for ids in encode_data(tokenizer, texts)]


def predict_lengths(tokenizer: Tokenizer, questions: Sequence[Question]) -> list[int]:
    """Tokens of what a student learns to answer at once."""
    return _with_end(tokenizer, [predict_prompt(each.text) + predict_target(each) for each in questions])


def explain_lengths(tokenizer: Tokenizer, questions: Sequence[Question]) -> list[int]:
    """Tokens of what a student learns to explain."""
    return _with_end(tokenizer, [explain_prompt(each.text) + _sentence(each) for each in questions])


def _sentence(question: Question) -> str:
    assert question.answer is not None, "only labelled questions are learned from"
    return answer_sentence(question, question.answer)


def _with_end(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """Tokens of texts that a student learns to write, with the token that ends them."""
    end = tokenizer.eos_token_id
    return [len(ids) + (end is not None and ids[-1:] != [end]) for ids in encode_data(tokenizer, texts)]
