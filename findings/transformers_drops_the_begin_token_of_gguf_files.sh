#!/usr/bin/env bash
# transformers 5.19.0: a tokenizer read from a GGUF file puts no begin token in front, whatever the file says.
#
# Behaviour: a GGUF file says by tokenizer.ggml.add_bos_token and add_eos_token whether a text begins and ends with
# these tokens. AutoTokenizer.from_pretrained(…, gguf_file=…) does not read the two keys: its tokenizer adds neither,
# for Gemma and Llama alike, whose models were trained with a begin token, and nothing is said. What the two
# arguments of the same names ask for is done, so whoever reads the metadata can hand it on.
#
# Source: transformers/integrations/gguf/gguf_tokenizer_mapping.py of that version: GGUF_TOKENIZER_MAPPING lists
# ggml.bos_token_id and ggml.eos_token_id, and neither of the two keys; transformers/tokenization_utils_tokenizers.py:
# `self._add_bos_token = kwargs.get("add_bos_token", False)`.
#
# Output seen:
#   the file: add_bos_token True, add_eos_token True
#   llama: a 1 -> ▁ a ▁ 1
#   llama, asked for: a 1 -> <bos> ▁ a ▁ 1 <eos>
#   gemma2: a 1 -> a ▁ 1
#   gemma2, asked for: a 1 -> <bos> a ▁ 1 <eos>
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" \
    torch==2.13.0 transformers==5.19.0 gguf==0.19.0 2>/dev/null
PYTHONPATH="$place/packages" TRANSFORMERS_VERBOSITY=error PYTHONIOENCODING=utf-8 python3 - "$place" > "$place/seen" <<'PYTHON'
import sys

import numpy as np
from gguf import GGUFReader, GGUFWriter
from transformers import AutoTokenizer

place = sys.argv[1]
pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "1"]
for architecture in ("llama", "gemma2"):
    writer = GGUFWriter(f"{place}/{architecture}.gguf", architecture)
    for key in ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
                "attention.head_count_kv", "attention.key_length"):
        writer.add_uint32(f"{architecture}.{key}", 1)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(place) for place in range(len(pieces))])
    writer.add_token_types([3, 3, 3, 2, 3, *256 * [6], 1, 1, 1])
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_tensor("token_embd.weight", np.zeros((len(pieces), 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if architecture == "llama":
        fields = GGUFReader(f"{place}/llama.gguf").fields
        said = [f"{name} {fields[f'tokenizer.ggml.{name}'].contents()}" for name in ("add_bos_token", "add_eos_token")]
        print("the file:", ", ".join(said))
    for asked, arguments in (("", {}), (", asked for", {"add_bos_token": True, "add_eos_token": True})):
        tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=f"{architecture}.gguf", **arguments)
        tokens = tokenizer.convert_ids_to_tokens(tokenizer("a 1")["input_ids"])
        print(f"{architecture}{asked}: a 1 -> {' '.join(tokens)}")
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
the file: add_bos_token True, add_eos_token True
llama: a 1 -> ▁ a ▁ 1
llama, asked for: a 1 -> <bos> ▁ a ▁ 1 <eos>
gemma2: a 1 -> a ▁ 1
gemma2, asked for: a 1 -> <bos> a ▁ 1 <eos>
EXPECTED
echo "as described"
