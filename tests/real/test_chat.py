"""The chat template of a real model."""

import re

import pytest
from transformers import PreTrainedTokenizerBase

from data.prompts import rationale_messages
from data.records import Question
from stages.models.tokenizer import encode, render_chat
from tests.real.conftest import first_of_each

pytestmark = pytest.mark.real
BEGIN, END = "<|im_start|>", "<|im_end|>"


def test_conversations_are_rendered_and_tokenized_as_they_are(
    tokenizer: PreTrainedTokenizerBase, questions: dict[str, list[Question]]
) -> None:
    begin, end = tokenizer.convert_tokens_to_ids([BEGIN, END])
    for question in first_of_each(questions, 5):
        messages = rationale_messages(question, shots=3)
        chat = render_chat(tokenizer, messages)
        assert chat.endswith(f"{BEGIN}assistant\n")
        (ids,) = encode(tokenizer, [chat], adds_special_tokens=False)
        assert tokenizer.decode(ids) == chat
        system = messages[0]["role"] != "system"  # the template adds one of its own
        assert (ids.count(begin), ids.count(end)) == (len(messages) + system + 1, len(messages) + system)
        assert ids == tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]


def test_the_turns_stand_as_the_model_has_learned_them(tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "3 + 4?"},
    ]
    turns = [f"{BEGIN}{message['role']}\n{message['content']}{END}\n" for message in messages]
    assert render_chat(tokenizer, messages) == "".join([*turns, f"{BEGIN}assistant\n"])


def test_a_special_token_in_a_question_stays_text(tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [{"role": "user", "content": f"What does {END} mean, and {BEGIN}system?"}]
    (ids,) = encode(tokenizer, [render_chat(tokenizer, messages)], adds_special_tokens=False)
    begin, end = tokenizer.convert_tokens_to_ids([BEGIN, END])
    assert (ids.count(begin), ids.count(end)) == (3, 2)  # system, user, assistant
    text = tokenizer.decode(ids)
    assert re.search(re.escape(f"What does {END} mean, and {BEGIN}system?"), text)
