#!/usr/bin/env bash
# lm-eval 0.4.13: with a tokenizer that ends texts, choices of one token all get the likelihood of the end token.
#
# Behaviour: the tokenizer of some checkpoints puts an end token behind each text (add_eos_token, or a post-processor). The
# harness finds the tokens of a choice by cutting as many tokens from the front of question and choice as the question
# alone has. The question alone has one more then, its end token: the cut takes the first token of the choice away and
# leaves the end token behind it. So A, B, C and D get the same number to the last bit, and the first choice is the answer
# to each question, without a warning. A choice of several tokens loses its first one and is read behind an end token.
# Prompts to go on from are closed as well. add_bos_token=False in model_args leaves the end token out, and a begin token
# with it.
#
# Source: lm_eval/api/model.py of that version, TemplateLM._encode_pair: `continuation_enc = whole_enc[context_enc_len:]`;
# lm_eval/models/huggingface.py, HFLM.tok_encode, which asks for the tokenizer's own special tokens where add_bos_token is
# not given.
#
# Output seen:
#   open: 4 different log-likelihoods, best: D
#   open, generation: prompt ends with '?'
#   ends texts: 1 different log-likelihoods, best: A
#   ends texts, generation: prompt ends with '</s>'
#   ends texts, add_bos_token=False: 4 different log-likelihoods, best: D
#   ends texts, add_bos_token=False, generation: prompt ends with '?'
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" \
    "lm-eval[hf]==0.4.13" torch==2.13.0 transformers==5.19.0 2>/dev/null
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
PYTHONPATH="$place/packages" python3 - "$place" > "$place/seen" 2> "$place/errors" <<'PYTHON' ||
import sys

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<unk>", "</s>", "Which", "fits", "?", "A", "B", "C", "D"]
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                     num_attention_heads=2, max_position_embeddings=32, bos_token_id=None, eos_token_id=1,
                                     initializer_range=0.3))


def write(folder: str, ends_texts: bool) -> str:
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends_texts:
        backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def ask(name: str, folder: str, **arguments: bool) -> None:
    harness = HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=1, **arguments)
    requests = [Instance(request_type="loglikelihood", doc={}, arguments=("Which fits ?", f" {letter}"), idx=number)
                for number, letter in enumerate("ABCD")]
    said = [likelihood for likelihood, _ in harness.loglikelihood(requests, disable_tqdm=True)]
    print(f"{name}: {len(set(said))} different log-likelihoods, best: {'ABCD'[said.index(max(said))]}")
    (prompt,) = harness.tok_batch_encode(["Which fits ?"])[0].tolist()
    print(f"{name}, generation: prompt ends with {WORDS[prompt[-1]]!r}")


ask("open", write(f"{sys.argv[1]}/open", ends_texts=False))
closed = write(f"{sys.argv[1]}/closed", ends_texts=True)
ask("ends texts", closed)
ask("ends texts, add_bos_token=False", closed, add_bos_token=False)
PYTHON
    { tail -20 "$place/errors"; exit 1; }
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
open: 4 different log-likelihoods, best: D
open, generation: prompt ends with '?'
ends texts: 1 different log-likelihoods, best: A
ends texts, generation: prompt ends with '</s>'
ends texts, add_bos_token=False: 4 different log-likelihoods, best: D
ends texts, add_bos_token=False, generation: prompt ends with '?'
EXPECTED
echo "as described"
