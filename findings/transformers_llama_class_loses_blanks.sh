#!/usr/bin/env bash
# transformers 5.19.0: a byte-level tokenizer.json under Llama's class name is loaded as another tokenizer.
#
# Behaviour: where tokenizer_config.json names LlamaTokenizer or LlamaTokenizerFast, the vocabulary and merges of
# tokenizer.json are put into a new SentencePiece-like tokenizer, and its pre-tokenizer and decoder are dropped. For a
# byte-level vocabulary (as of Llama 3 and of many fine-tuned models that carry the older name) all white space is lost,
# without a warning: encode and decode give back a text without blanks and line breaks. The same file under
# PreTrainedTokenizerFast is read as it is.
#
# Source: transformers/models/llama/tokenization_llama.py of that version, LlamaTokenizer.__init__, which builds its
# own tokenizers.Tokenizer from vocab and merges.
#
# Output seen:
#   PreTrainedTokenizerFast: 'Tom has 3 figs.\n\nHow many?'
#   LlamaTokenizerFast: 'Tomhas3figs.Howmany?'
#   LlamaTokenizer: 'Tomhas3figs.Howmany?'
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.19.0 2>/dev/null
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - "$place" > "$place/seen" 2>/dev/null <<'PYTHON'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

text = "Tom has 3 figs.\n\nHow many?"
made = Tokenizer(models.BPE())
made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
made.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
made.train_from_iterator([text] * 20, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
for name in ("PreTrainedTokenizerFast", "LlamaTokenizerFast", "LlamaTokenizer"):
    folder = Path(sys.argv[1]) / name
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    loaded = AutoTokenizer.from_pretrained(folder)
    print(f"{name}: {loaded.decode(loaded(text, add_special_tokens=False)['input_ids'])!r}")
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
PreTrainedTokenizerFast: 'Tom has 3 figs.\n\nHow many?'
LlamaTokenizerFast: 'Tomhas3figs.Howmany?'
LlamaTokenizer: 'Tomhas3figs.Howmany?'
EXPECTED
echo "as described"
