"""How many tokens a student's prompts have, how many it has room for, and by which it ends, without loading torch.

In: a checkpoint's folder. Out: counts of tokens by its tokenizer.json, as `stages.models.tokenizer.encode_data` makes
them; positions of config.json; and the texts of the tokens that end what it writes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import ConfigError, first_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer

POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx")
"""What configurations call the longest text that a model knows positions for."""


@dataclass(frozen=True)
class AskedStudent:
    """A checkpoint as whoever asks it has to know it."""

    folder: Path

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, with those that the tokenizer adds; nothing in it is taken for a special token."""
        return [len(ids) for ids in self._ids(texts, as_data=True)]

    def holds_special_tokens(self, texts: Sequence[str]) -> list[bool]:
        """Which texts hold what looks like a special token, and so are other tokens for who does not mind that."""
        return [data != usual for data, usual in zip(self._ids(texts), self._ids(texts, as_data=False), strict=True)]

    @cached_property
    def positions(self) -> int | None:
        """Most tokens that the model knows positions for; None where its configuration has no end of them."""
        config = _json(self.folder / "config.json")
        text = config.get("text_config")
        found = ((text if isinstance(text, dict) else config).get(name) for name in POSITIONS)
        return next((int(number) for number in found if isinstance(number, int) and number > 0), None)

    @cached_property
    def ends(self) -> tuple[str, ...]:
        """The tokens that end a text: those of the preferences and the tokenizer's own, as text."""
        preferred = _json(self.folder / "generation_config.json", optional=True).get("eos_token_id")
        ids = preferred if isinstance(preferred, list) else [preferred]
        texts = [self._tokenizer.id_to_token(token) for token in ids if isinstance(token, int)]
        own = _json(self.folder / "tokenizer_config.json", optional=True).get("eos_token")
        texts.append(own.get("content") if isinstance(own, dict) else own)
        return tuple(dict.fromkeys(text for text in texts if text))

    def _ids(self, texts: Sequence[str], *, as_data: bool = True) -> list[list[int]]:
        self._tokenizer.encode_special_tokens = as_data
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        path = self.folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing more special
            raise ConfigError(f"{path}: cannot be read as a tokenizer ({first_line(error)})") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer


def _json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """What a file of a checkpoint holds."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        if optional:
            return {}
        raise ConfigError(f"{path}: missing; a student's folder has it") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({first_line(error)})") from error
