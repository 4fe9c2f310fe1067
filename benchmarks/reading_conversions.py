"""What a converted student computes, read by the tool that it was converted for; imports nothing of ours.

python reading_conversions.py TOOL CONVERTED EXPECTED

`EXPECTED` has prompts as token ids, what greedy decoding continues them by up to the token that ends a text, and the
logits of each prompt's tokens.
Prints one line of JSON: by how much logits differ, as a share of the largest, and how many continuations are the same.
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Asked: TypeAlias = tuple[np.ndarray, list[int]]
"""Logits (T, V) of a prompt, and the ids that follow it."""
Ask: TypeAlias = Callable[[list[int], int], Asked]


def onnx(folder: Path) -> Ask:
    """ONNX Runtime, by optimum."""
    kind: Any = importlib.import_module("optimum.onnxruntime").ORTModelForCausalLM
    return _by_optimum(kind.from_pretrained(folder))


def openvino(folder: Path) -> Ask:
    """OpenVINO, by optimum, in the precision of the weights."""
    kind: Any = importlib.import_module("optimum.intel").OVModelForCausalLM
    exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    return _by_optimum(kind.from_pretrained(folder, ov_config=exact))


def openvino_as_it_comes(folder: Path) -> Ask:
    """OpenVINO as it computes where nobody asks for a precision."""
    return _by_optimum(importlib.import_module("optimum.intel").OVModelForCausalLM.from_pretrained(folder))


def _by_optimum(model: Any) -> Ask:
    torch: Any = importlib.import_module("torch")

    def ask(prompt: list[int], tokens: int) -> Asked:
        ids = torch.tensor([prompt])
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        logits = model(**given, position_ids=torch.arange(len(prompt))[None]).logits[0].float().numpy()
        written = model.generate(**given, max_new_tokens=tokens, do_sample=False)
        return logits, written[0, len(prompt) :].tolist()

    return ask


def ctranslate2(folder: Path) -> Ask:
    """CTranslate2."""
    generator: Any = importlib.import_module("ctranslate2").Generator(str(folder), compute_type="float32")
    vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))

    def ask(prompt: list[int], tokens: int) -> Asked:
        logits = np.asarray(generator.forward_batch([prompt], return_log_probs=False))[0]
        names = [[vocabulary[token] for token in prompt]]
        written = generator.generate_batch(names, max_length=tokens, sampling_topk=1, include_prompt_in_result=False)
        return logits, written[0].sequences_ids[0]

    return ask


def gguf(file: Path) -> Ask:
    """llama.cpp."""
    module: Any = importlib.import_module("llama_cpp")
    # keys and values in the precision of the weights; llama.cpp takes half of it
    exact = {"logits_all": True, "type_k": module.GGML_TYPE_F32, "type_v": module.GGML_TYPE_F32}
    model = module.Llama(str(file), n_ctx=512, verbose=False, **exact)

    def ask(prompt: list[int], tokens: int) -> Asked:
        model.reset()
        model.eval(prompt)
        logits = np.array(model.scores[: len(prompt)])
        written: list[int] = []
        while len(written) < tokens and (not written or written[-1] != model.token_eos()):
            written.append(int(np.argmax(model.scores[model.n_tokens - 1])))
            model.eval(written[-1:])
        return logits, written

    return ask


def main() -> None:
    """Ask the converted student what the original was asked."""
    tool, converted, expected = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    ask: Ask = globals()[tool](converted)
    asked = json.loads((expected / "expected.json").read_text(encoding="utf-8"))
    logits = np.load(expected / "logits.npz")
    differences, same = [], 0
    for number, (prompt, continued) in enumerate(zip(asked["prompts"], asked["continued"], strict=True)):
        found, written = ask(prompt, asked["tokens"])
        wanted = logits[str(number)]
        differences.append(float(np.abs(found - wanted).max() / np.abs(wanted).max()))
        ended = written[-1:] == [asked["end"]]  # some tools leave the token out that ends a text
        same += written[: len(written) - ended] == continued
    print(json.dumps({"difference": max(differences), "same": same, "prompts": len(asked["prompts"])}))


if __name__ == "__main__":
    main()
