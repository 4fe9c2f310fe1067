"""Text of a data set that looks like a special token stays text: "</s>" in a question ends nothing.

Prompts without a chat template are data from end to end, so a tokenizer is told to take no special token out of them. A
rendered chat holds both, the template's own and what may stand in a message. So messages are guarded before they are
rendered, by a mark inside each such string, and what is tokenized are the pieces between the template's special tokens,
without the marks. Chats without such strings are tokenized as ever.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "\ufdd0"
"""No character: Unicode keeps it for a program's own use, so that no text holds it."""


def guarded(tokenizer: "PreTrainedTokenizerBase", text: str) -> str:
    """A message in which no special token is left, for the template; `encode_chats` takes the marks out again."""
    pattern = _pattern(_special_tokens(tokenizer))
    return pattern.sub(lambda found: _marked(found[0]), text) if pattern else text


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
