#!/usr/bin/env bash
# transformers 5.19.0: the tokenizer of a GGUF file without <|endoftext|> has one token more than the model knows.
#
# Behaviour: for a byte-level vocabulary (tokenizer.ggml.model gpt2, as Llama 3's and many others') transformers builds
# GPT-2's tokenizer, whose unknown token is <|endoftext|>. Where the file's vocabulary has no such token it is added
# behind the last one, as a special token: len(tokenizer) is one more than there are rows of embeddings, and a text in
# which "<|endoftext|>" stands, such as a document about language models, becomes an id for which the model has no
# embedding. No warning is given, and save_pretrained writes the token into tokenizer.json.
#
# Source: transformers/integrations/gguf/gguf_tokenizer_mapping.py of that version, byte_level_tokenizer, returns
# GPT2Tokenizer(vocab=…, merges=…); transformers/models/gpt2/tokenization_gpt2.py: unk_token="<|endoftext|>".
#
# Output seen:
#   tokens in the file: 258, in the tokenizer: 259
#   <|endoftext|> -> [258]
#   unknown token: None
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" \
    torch==2.13.0 transformers==5.19.0 gguf==0.19.0 2>/dev/null
PYTHONPATH="$place/packages" TRANSFORMERS_VERBOSITY=error python3 - "$place" > "$place/seen" <<'PYTHON'
import sys

import numpy as np
from gguf import GGUFWriter
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

place = sys.argv[1]
tokens = ["<s>", "</s>", *bytes_to_unicode().values()]
writer = GGUFWriter(f"{place}/model.gguf", "llama")
for key in ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"):
    writer.add_uint32(f"llama.{key}", 1)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("llama-bpe")
writer.add_token_list(tokens)
writer.add_token_scores([0.0] * len(tokens))
writer.add_token_types([3, 3, *256 * [1]])
writer.add_bos_token_id(0)
writer.add_eos_token_id(1)
writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 1), np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
tokenizer = AutoTokenizer.from_pretrained(place, gguf_file="model.gguf")
print(f"tokens in the file: {len(tokens)}, in the tokenizer: {len(tokenizer)}")
print("<|endoftext|> ->", tokenizer("<|endoftext|>")["input_ids"])
print("unknown token:", tokenizer.unk_token)
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
tokens in the file: 258, in the tokenizer: 259
<|endoftext|> -> [258]
unknown token: None
EXPECTED
echo "as described"
