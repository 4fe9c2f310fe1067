"""From text to token ids, the same way everywhere: tokenizers are loaded, chats rendered, and data stays data.

Text of a data set that looks like a special token stays text: "</s>" in a question ends nothing. Prompts without a chat
template are data from end to end, so a tokenizer is told to take no special token out of them. A rendered chat holds
both, the template's own and what may stand in a message. So messages are guarded before they are rendered, by a mark
inside each such string, and what is tokenized are the pieces between the template's special tokens, without the marks.
Chats without such strings are tokenized as ever.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from data.errors import ConfigError, Interrupted, ModelError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "\ufdd0"
"""No character: Unicode keeps it for a program's own use, so that no text holds it."""
PROBE = "Tom has 3 figs,\n\n  and 1,234.5 more.\tNow, Zoë: 12 crêpes?"
"""A text that every tokenizer has to give back: blanks, digits, line breaks and accents."""

DATES = "aAbBcdHIjmMpSUVwWxXyY"
"""Directives of strftime, each also with a dash ("%-d" is a day without zero)."""


def guarded(tokenizer: "PreTrainedTokenizerBase", text: str) -> str:
    """A message in which no special token is left, for the template; `encode_chats` takes the marks out again."""
    pattern = _pattern(_special_tokens(tokenizer))
    return pattern.sub(lambda found: _marked(found[0]), text) if pattern else text


def begin_token(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """What has to stand in front of a text so that its first token is none of its own: the begin or else the end token.

    None where the tokenizer puts a special token there itself, and where it has neither.
    """
    encoded = tokenizer(PROBE, return_special_tokens_mask=True)
    if encoded["special_tokens_mask"][0]:
        return None
    token: int | None = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return token


def encode_data(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts that are data from end to end; only the tokenizer itself adds special tokens."""
    return list(tokenizer(list(texts), split_special_tokens=True)["input_ids"])


def encode_chats(tokenizer: "PreTrainedTokenizerBase", chats: Sequence[str]) -> list[list[int]]:
    """Token ids of rendered chats whose messages were guarded."""
    ids = _whole(tokenizer, [chat.replace(MARK, " ") for chat in chats])
    return [
        _guarded_ids(tokenizer, chat, usual) if MARK in chat else usual for chat, usual in zip(chats, ids, strict=True)
    ]


def _guarded_ids(tokenizer: "PreTrainedTokenizerBase", chat: str, with_blanks: list[int]) -> list[int]:
    """Token ids of a chat with marks in it.

    Pieces are tokenized apart where that is what the tokenizer itself does with text between special tokens, which a
    harmless chat of the same form shows. Where it is not (a tokenizer that treats the beginning of a text differently,
    or strips blanks beside special tokens), a blank stands for each mark instead: "< /s>".
    """
    guarded_tokens = _pattern([_marked(token) for token in _special_tokens(tokenizer)])
    assert guarded_tokens is not None, "a mark was set inside a special token"
    harmless = guarded_tokens.sub("word", chat)
    if _in_pieces(tokenizer, harmless) == _whole(tokenizer, [harmless])[0]:
        return _in_pieces(tokenizer, chat)
    return with_blanks


def _whole(tokenizer: "PreTrainedTokenizerBase", chats: Sequence[str]) -> list[list[int]]:
    return list(tokenizer(list(chats), add_special_tokens=False, split_special_tokens=False)["input_ids"])


def _in_pieces(tokenizer: "PreTrainedTokenizerBase", chat: str) -> list[int]:
    """Special tokens as they are, and what stands between them as data."""
    pattern = _pattern(_special_tokens(tokenizer))
    assert pattern is not None, "a mark was set inside a special token"
    pieces = [piece.replace(MARK, "") for piece in pattern.split(chat)]
    encoded = tokenizer(pieces, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    between = [[tokenizer.convert_tokens_to_ids(token)] for token in pattern.findall(chat)]
    return [token for ids, special in zip(encoded, [*between, []], strict=True) for token in (*ids, *special)]


def _special_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Those of which a mark can stand inside, the longest first, since that is which one is found."""
    special = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted((token for token in special if len(token) > 1), key=len, reverse=True)


def _marked(token: str) -> str:
    return token[:1] + MARK + token[1:]


def _pattern(tokens: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, tokens))) if tokens else None


def load_tokenizer(model: str, revision: str | None, *, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """Load a model's tokenizer; code that comes with it runs only where it is trusted.

    `ConfigError` for one that cannot be loaded, that does not give back what it was given, or that ends every prompt.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=trust_remote_code)
        tokenizer = _with_offsets(tokenizer, model, revision)
    except Interrupted:
        raise
    except Exception as error:  # tokenizers raises nothing more special than that for a broken file
        if needs_trust(error):
            raise ConfigError(untrusted(model)) from error
        raise ConfigError(f"model {model}: its tokenizer cannot be loaded ({first_line(error)})") from error
    _check(tokenizer, model)
    return tokenizer


def _with_offsets(tokenizer: "PreTrainedTokenizerBase", model: str, revision: str | None) -> "PreTrainedTokenizerBase":
    """The tokenizer in Hugging Face's form where transformers prefers one that cannot say where its tokens lie.

    It takes mistral-common's wherever a tekken.json lies beside tokenizer.json and that package is installed.
    """
    from transformers import PreTrainedTokenizerFast

    if type(tokenizer).__name__ != "MistralCommonBackend":
        return tokenizer
    return PreTrainedTokenizerFast.from_pretrained(model, revision=revision)


def _check(tokenizer: "PreTrainedTokenizerBase", model: str) -> None:
    """Refuse a tokenizer that loses something of a text, or that ends it: prompts go on, and spans have to fit.

    transformers 5.19 rebuilds byte-level tokenizers as SentencePiece where tokenizer_config.json names Llama's class
    (5.24 reads them as they are); blanks are lost then, and a comparison with eager attention cannot see it, for both
    sides read the same tokens.
    """
    ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    back = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if back.strip() != PROBE and tokenizer.unk_token_id not in ids:
        raise ConfigError(
            f"model {model}: its tokenizer makes {back!r} of {PROBE!r}; if tokenizer.json is right, the class that "
            "tokenizer_config.json names is not: set tokenizer_class to PreTrainedTokenizerFast there"
        )
    ids = tokenizer(PROBE)["input_ids"]
    if tokenizer.eos_token_id is not None and ids[-1] == tokenizer.eos_token_id:
        raise ConfigError(
            f"model {model}: its tokenizer ends every text with {tokenizer.eos_token!r}, so that no prompt would be "
            "open; set add_eos_token to false in tokenizer_config.json, or take the token out of the post_processor in "
            "tokenizer.json"
        )


def needs_trust(error: BaseException) -> bool:
    """Whether a library refuses a model because it brings its own code."""
    return "trust_remote_code" in str(error)


def untrusted(model: str) -> str:
    """What a user is told then."""
    return (
        f"model {model}: it comes with code of its own, which is not run; read that code, and set "
        "teacher.trust_remote_code: true if you trust it (a student's is never run)"
    )


def end_tokens(*known: int | Sequence[int] | None) -> set[int]:
    """All tokens that end a text: the tokenizer's own, and those of the checkpoint's preferences."""
    several = ((ids,) if isinstance(ids, int) else ids or () for ids in known)
    return {end for ids in several for end in ids}


def render_chat(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, str]],
    arguments: Mapping[str, Any] | None = None,
    day: date | None = None,
) -> str:
    """Put messages through the model's chat template; their text is data to it and, for `encode`, to the tokenizer.

    `arguments` are the template's own, such as `enable_thinking`; one that writes the date writes `day`, today by
    default. Where the template refuses a system message or leaves it out, as some do, its text opens the first message
    of the user. `ModelError` for a model without template, and for one whose template fails or loses a message.
    """
    if not tokenizer.chat_template:
        raise ModelError(f"model {tokenizer.name_or_path}: `chat: true` needs a tokenizer with a chat template")
    data = [{"role": each["role"], "content": guarded(tokenizer, each["content"])} for each in messages]
    attempts = [data, _without_system(data)] if data[0]["role"] == "system" else [data]
    variables = dict(arguments or {})
    if day is not None:
        variables["chat_template"] = _of_day(tokenizer.get_chat_template(), day)
    reason = ""
    for attempt in attempts:
        try:
            rendered = tokenizer.apply_chat_template(attempt, tokenize=False, add_generation_prompt=True, **variables)
            chat = str(rendered)
        except Exception as error:  # whatever a template may call, its own raise_exception among it
            reason = first_line(error)
            continue
        if all(message["content"].strip() in chat for message in attempt):
            return chat
        reason = "it leaves out what messages say"
    raise ModelError(f"model {tokenizer.name_or_path}: its chat template takes no such conversation: {reason}")


def _of_day(template: str, day: date) -> str:
    """The template with a `strftime_now` of its own, which knows the directives of `DATES` for this day.

    Handing a function over does not do: since 5.24 transformers makes text of all that is no plain data. The end of the
    line is one that templates lose behind a block, so that nothing of this is in the chat.
    """
    written = {f"%{flag}{letter}": day.strftime(f"%{flag}{letter}") for flag in ("", "-") for letter in DATES}
    steps = [("%%", "\0"), *written.items(), ("\0", "%")]
    replaced = "".join(f".replace({json.dumps(old)}, {json.dumps(new)})" for old, new in steps)
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n{template}"


def _without_system(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    system, first, *others = messages
    return [{"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}, *map(dict, others)]


def encode(
    tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str], *, adds_special_tokens: bool
) -> list[list[int]]:
    """Turn prompts into token ids, the same way for every engine; special tokens never come from a question's text.

    Without `adds_special_tokens` prompts are chats as `render_chat` makes them.
    """
    if not prompts:
        return []
    return encode_data(tokenizer, prompts) if adds_special_tokens else encode_chats(tokenizer, prompts)
