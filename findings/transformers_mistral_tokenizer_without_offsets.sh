#!/usr/bin/env bash
# transformers 5.19.0 with mistral-common 1.13.1: a tekken.json beside tokenizer.json decides which tokenizer is loaded.
#
# Behaviour: for a folder of model type mistral, AutoTokenizer takes MistralCommonBackend as soon as tekken.json lies in
# it and mistral-common can be imported, whatever tokenizer_class tokenizer_config.json names. That tokenizer knows no
# offsets: `return_offsets_mapping` and `split_special_tokens` raise. So code that needs to know where tokens lie works
# until somebody installs mistral-common (vLLM brings it along) or adds the file, and then does not.
# `mistral_format=False`, or PreTrainedTokenizerFast.from_pretrained, gives the one of tokenizer.json.
#
# Source: transformers/models/auto/tokenization_auto.py of that version, _use_mistral_format and the places that ask it;
# transformers/tokenization_mistral_common.py for what raises.
#
# Output seen:
#   without tekken.json: TokenizersBackend, offsets [(0, 3), (3, 4), (4, 7)]
#   with tekken.json: MistralCommonBackend, offsets ValueError
#   with tekken.json, mistral_format=False: TokenizersBackend, offsets [(0, 3), (3, 4), (4, 7)]
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.19.0 mistral-common==1.13.1 \
    sentencepiece tiktoken 2>/dev/null
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - "$place/model" > "$place/seen" 2>/dev/null <<'PYTHON'
import base64
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

folder = Path(sys.argv[1])
words = Tokenizer(models.WordLevel({"Tom": 0, "has": 1, " ": 2, "<unk>": 3}, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)
(folder / "config.json").write_text(json.dumps({"model_type": "mistral"}))


def look(name, **arguments):
    tokenizer = AutoTokenizer.from_pretrained(folder, **arguments)
    try:
        offsets = tokenizer("Tom has", return_offsets_mapping=True)["offset_mapping"]
    except ValueError as error:
        offsets = type(error).__name__
    print(f"{name}: {type(tokenizer).__name__}, offsets {offsets}")


look("without tekken.json")
names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"]
names += ["[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]"]
special = [{"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(names)]
each = [{"rank": byte, "token_bytes": base64.b64encode(bytes([byte])).decode(), "token_str": None} for byte in range(256)]
config = {"pattern": r"\S+|\s+", "num_vocab_tokens": 256, "default_vocab_size": 256 + len(names), "version": "v3"}
config["default_num_special_tokens"] = len(names)
own = {"config": config, "vocab": each, "special_tokens": special}
(folder / "tekken.json").write_text(json.dumps(own))
look("with tekken.json")
look("with tekken.json, mistral_format=False", mistral_format=False)
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
without tekken.json: TokenizersBackend, offsets [(0, 3), (3, 4), (4, 7)]
with tekken.json: MistralCommonBackend, offsets ValueError
with tekken.json, mistral_format=False: TokenizersBackend, offsets [(0, 3), (3, 4), (4, 7)]
EXPECTED
echo "as described"
