"""Attention by vLLM and by transformers for one model after the other, all in this process: a start takes seconds.

    python families.py < JSON of [{"folder": …, "dtype": …, "compiled": …, "reference": what transformers reads}, …]

Writes a line of JSON for each: how far vLLM's is from transformers' pass, or why it is refused.
"""

import gc
import json
import os
import sys
from typing import Any

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "0"}


def main() -> None:
    for asked in json.loads(sys.stdin.read()):
        sys.stdout.write(json.dumps({**asked, **examined(**asked)}) + "\n")
        sys.stdout.flush()


def examined(
    folder: str, dtype: str = "float32", reference: str | None = None, compiled: bool = False
) -> dict[str, Any]:
    import numpy as np
    import torch
    from vllm.distributed import cleanup_dist_env_and_memory

    from data.errors import ModelError
    from stages.attention.batches import TokenBudget
    from stages.attention.in_vllm.engine import VllmAttention
    from stages.attention.in_vllm.worker import EXTENSION
    from stages.attention.stepwise import distance, stepwise_of
    from stages.attention.tokens import locate
    from stages.engines.contract import Decoding, EngineSetup
    from stages.engines.kinds.vllm import VllmEngine
    from stages.models.load import load_causal_lm
    from stages.models.tokenizer import begin_token, load_tokenizer
    from tests.stages.attention.in_vllm.texts import TEXTS

    tokenizer = load_tokenizer(folder, None)
    located = [locate(tokenizer, text, begin=begin_token(tokenizer)) for text in TEXTS]
    setup = EngineSetup(
        model=folder, revision=None, decoding=Decoding(max_tokens=8), dtype=dtype, device="cpu",
        arguments={"max_model_len": 512, "enforce_eager": not compiled}, extension=EXTENSION,
    )  # fmt: skip
    engine = VllmEngine(setup)
    hooked = []
    try:
        for layer in engine.llm.llm_engine.vllm_config.compilation_config.static_forward_context.values():
            layer.register_forward_pre_hook(lambda *_: hooked.append(1))
        attention = VllmAttention(engine)
        engine.generate(["Tom has 3 figs."])
        found = attention.of([f"record {number}" for number in range(len(located))], located, compare=True)
    except ModelError as error:
        return {"refused": str(error)}
    finally:
        engine.close()
        del engine
        gc.collect()
        cleanup_dist_env_and_memory()
    model = load_causal_lm(reference or folder, None, dtype).eval()
    with torch.inference_mode():
        expected = stepwise_of(model, located, TokenBudget(4096))
    apart = [distance(one, other, text) for one, other, text in zip(found, expected, located, strict=True)]
    tokens = [one.step_tokens()[None, :, None].clip(1) for one in located]
    largest = [np.abs((a.words - b.words) / t).max() for a, b, t in zip(found, expected, tokens, strict=True)]
    return {
        "apart": float(max(apart)),
        "largest": float(max(largest)),
        "formula": attention.apart,
        "hooked": len(hooked),
        "ways": sorted(set(attention.ways.values())),
        "longest": max(len(one.ids) for one in located),
    }


if __name__ == "__main__":
    main()
