"""What this version of transformers makes of the folders that `older_transformers` wrote; imports nothing of ours.

python reading_students.py FOLDER
"""

import json
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROUNDING = 1e-4
"""Most that logits may differ, as a share of the largest: kernels and their order differ between versions."""


@torch.no_grad()
def student(folder: Path) -> str:
    """Compare logits and the ids that generation takes."""
    expected = np.load(folder / "logits.npy")
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
        found = model(input_ids=torch.arange(3, 63)[None], use_cache=False).logits.numpy()
    except Exception as error:  # what a version refuses, it tells
        return f"refused: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    return "equal" if difference <= ROUNDING else f"DIFFERENT: by {difference:.1e} of the largest logit"


def tokenizer(folder: Path) -> str:
    """Compare ids, decoded text and what is handed to the model."""
    expected = json.loads((folder / "expected.json").read_text())
    try:
        read = AutoTokenizer.from_pretrained(folder)
        ids = [read(text)["input_ids"] for text in expected["texts"]]
        decoded = [read.decode(one, skip_special_tokens=True) for one in ids]
        inputs = sorted(read(expected["texts"][0]))
    except Exception as error:  # what a version refuses, it tells
        return f"refused: {type(error).__name__}: {error}"[:160]
    found = {"ids": ids, "decoded": decoded, "inputs": inputs}
    differ = [name for name, value in found.items() if value != expected[name]]
    return f"DIFFERENT: {', '.join(differ)}" if differ else "equal"


def main() -> None:
    """Print one line of JSON, by folder name."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    folders = sorted(Path(sys.argv[1]).iterdir())
    print(json.dumps({f.name: tokenizer(f) if (f / "expected.json").exists() else student(f) for f in folders}))


if __name__ == "__main__":
    main()
