"""A student's folder as every reader of checkpoints reads it: transformers 4 as well as 5, with nothing inherited.

In: a model in memory and its tokenizer. Out: the folder that `save_pretrained` writes, with the names that transformers
4 reads beside those of transformers 5, and a `generation_config.json` that says which tokens end a text and nothing
else: a student that inherits its base model's repetition penalty does not write what its evaluation judged.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from stages.models.identity import WEIGHTS
from stages.models.older_readers import with_older_class, with_older_names
from stages.models.tokenizer import end_tokens

INSISTING = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
"""What transformers 5 wants to see before it tidies texts of byte pairs."""


def save_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    state_dict: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write model and tokenizer into `folder`; `state_dict` where the model holds only a part of its weights."""
    ends = end_tokens(model.generation_config.eos_token_id, tokenizer.eos_token_id)
    save_model(model, folder, ends, state_dict)
    save_tokenizer(tokenizer, folder)


def save_model(
    model: PreTrainedModel, folder: Path, ends: Iterable[int], state_dict: dict[str, torch.Tensor] | None = None
) -> None:
    """Write weights and configuration; the tokens `ends` end a text."""
    model.save_pretrained(folder, state_dict=state_dict)
    _share_weights(folder)
    GenerationConfig(eos_token_id=sorted(ends) or None).save_pretrained(folder)
    _rewrite(folder / "config.json", with_older_names)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the tokenizer, with the sides that it pads and cuts now: transformers leaves out what its class has anyway.

    transformers 5 tidies no text of byte pairs whatever the configuration says, and transformers 4 would.
    """
    tokenizer.save_pretrained(folder)
    said = {"padding_side": tokenizer.padding_side, "truncation_side": tokenizer.truncation_side}
    if _is_left_untidy(tokenizer):
        said["clean_up_tokenization_spaces"] = False
    _rewrite(folder / "tokenizer_config.json", lambda config: with_older_class({**config, **said}))


def _is_left_untidy(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether transformers 5 decodes texts as they are, though the configuration asks for no blanks before a comma."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return type(getattr(backend, "model", None)).__name__ == "BPE" and not getattr(tokenizer, INSISTING, False)


def _share_weights(folder: Path) -> None:
    """Let whoever may read the configuration in a folder read the weights beside and below it, too.

    safetensors 0.8.0 writes files that are their owner's alone, whatever the umask.
    """
    mode = (folder / "config.json").stat().st_mode
    for weights in folder.rglob(WEIGHTS):
        weights.chmod(mode)


def _rewrite(path: Path, change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(config), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
