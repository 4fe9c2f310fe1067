#!/usr/bin/env bash
# transformers 5.19.0 and 4.57.6: one folder of a Llama tokenizer puts a begin token in front of texts in the older only.
#
# Behaviour: a LlamaTokenizer of transformers 5 that was made from a vocabulary has no begin token in its
# post-processor, and tokenizer.json says so. transformers 4 reads that file by LlamaTokenizerFast, which writes a
# post-processor of its own, with a begin token unless tokenizer_config.json has `add_bos_token: false`, and transformers 5
# does not write that key. Gemma's behave alike. Named PreTrainedTokenizerFast in tokenizer_config.json, both read
# what tokenizer.json says; but that class makes token_type_ids in transformers 4 unless `model_input_names` leaves
# them out, and `generate` refuses them.
#
# Source: ids of one text, of a tokenizer saved by 5.19.0 and read again by both.
#
# Output seen:
#   5.19.0 LlamaTokenizer: no begin token; input_ids attention_mask
#   4.57.6 LlamaTokenizerFast: a begin token; input_ids attention_mask
#   5.19.0 TokenizersBackend: no begin token; input_ids attention_mask
#   4.57.6 PreTrainedTokenizerFast: no begin token; input_ids token_type_ids attention_mask
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
pip=("$place/venv/bin/pip" install --quiet --disable-pip-version-check)
"${pip[@]}" transformers==5.19.0 2>/dev/null
"${pip[@]}" --target "$place/older" transformers==4.57.6 2>/dev/null
export TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1
cat > "$place/write.py" <<'PYTHON'
import json
import shutil
import sys
from pathlib import Path

from transformers import LlamaTokenizer

own, general = Path(sys.argv[1]), Path(sys.argv[2])
pieces = ["<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
LlamaTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]).save_pretrained(own)
shutil.copytree(own, general)
path = general / "tokenizer_config.json"
path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}))
PYTHON
cat > "$place/read.py" <<'PYTHON'
import sys

import transformers
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
encoded = tokenizer("two figs")
begins = "a" if encoded["input_ids"][0] == tokenizer.bos_token_id else "no"
print(f"{transformers.__version__} {type(tokenizer).__name__}: {begins} begin token;", *encoded)
PYTHON
{
    "$place/venv/bin/python" "$place/write.py" "$place/own" "$place/general"
    for folder in own general; do
        "$place/venv/bin/python" "$place/read.py" "$place/$folder"
        PYTHONPATH="$place/older" "$place/venv/bin/python" "$place/read.py" "$place/$folder"
    done
} 2>"$place/errors" | tee "$place/seen" || { tail -20 "$place/errors"; exit 1; }
diff <(sed -n 's/^#   //p' "$0") "$place/seen"
