#!/usr/bin/env bash
# transformers 5.19.0: a special token that only tokenizer_config.json names gets a number behind the vocabulary.
#
# Behaviour: tokenizer.json is not all of a model's vocabulary. Where tokenizer_config.json names a pad, begin or other
# special token that tokenizer.json does not have, loading adds it under the next free number, without a warning. The
# number is behind the last embedding of a model that was saved beside it, so that padding by it is an index out of
# range, and two programs that read the same folder, one by `tokenizers`, one by transformers, count another vocabulary.
#
# Source: transformers/tokenization_utils_tokenizers.py of that version, which adds the special tokens of its arguments
# that the backend does not know.
#
# Output seen:
#   tokenizers: 4 tokens, <pad> is number None
#   transformers: 5 tokens, <pad> is number 4
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.19.0 2>/dev/null
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - "$place" > "$place/seen" 2>/dev/null <<'PYTHON'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

folder = Path(sys.argv[1]) / "model"
folder.mkdir()
made = Tokenizer(models.WordLevel({"one": 0, "two": 1, "three": 2, "<end>": 3}, unk_token="<end>"))
made.pre_tokenizer = pre_tokenizers.Whitespace()
made.save(str(folder / "tokenizer.json"))
named = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "pad_token": "<pad>"}
(folder / "tokenizer_config.json").write_text(json.dumps(named))
alone, loaded = Tokenizer.from_file(str(folder / "tokenizer.json")), AutoTokenizer.from_pretrained(folder)
print(f"tokenizers: {alone.get_vocab_size()} tokens, <pad> is number {alone.token_to_id('<pad>')}")
print(f"transformers: {len(loaded)} tokens, <pad> is number {loaded.convert_tokens_to_ids('<pad>')}")
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
tokenizers: 4 tokens, <pad> is number None
transformers: 5 tokens, <pad> is number 4
EXPECTED
echo "as described"
