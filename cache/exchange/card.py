"""The card of an exported space: what it is, enters as a space and leaves as README.md.

It is for somebody who has found the files and nothing else. The lines between `---` are read by the Hugging Face hub.
The licence is for whoever hands the records on to state: it depends on the teacher and on the questions.
"""

import json
from collections.abc import Mapping

from cache.fingerprints import JSON
from cache.spaces import Space, describe, layers_of

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

WHAT = {
    "attention": """\
Stepwise attention of a teacher: for each record, a question with a rationale, and for each layer of the teacher, how
much the tokens of each reasoning step look at each critical word, averaged over heads and added up over the tokens of
the step (Eq. 2 after [arXiv 2604.15701](https://arxiv.org/abs/2604.15701)). That is one (layers, steps, words) array of
float16 a record, with the texts and the character spans of steps and words. MoLSAKI trains small students from it.""",
    "rationales": """\
Rationales of a teacher: every attempt at a question, with what the teacher wrote, the rationale and answer found in it,
and whether it was kept or why it was dropped. MoLSAKI trains small students from those that were kept.""",
}
READ = {
    "attention": """\
With zarr alone (format 3), here one part; all arrays are described in `docs/cache-format.md` of MoLSAKI:

```python
from pathlib import Path

import zarr

part = sorted(Path("{folder}/parts").iterdir())[0]
group = zarr.open_group(part, mode="r", zarr_format=3)
steps, words = group["steps"][...].astype(int), group["words"][...].astype(int)
cells = group["attention"][: steps[0] * words[0]]
attention = cells.T.reshape(-1, steps[0], words[0])  # the first record: layers, steps, words
question, rationale = group["text"][...].tobytes().split(b"\\xff")[:2]
```""",
    "rationales": """\
With any reader of Parquet:

```python
import pandas as pd

attempts = pd.read_parquet("{folder}/parts")
```""",
}
CARD = """\
---
pretty_name: {title}
tags: [molsaki, {kind}, knowledge-distillation, chain-of-thought]
size_categories: [{size}]
viewer: false
---

# {name}

{what}

| | |
|---|---|
{facts}

## What it was made with

Two spaces with the same fingerprint were made alike and can be merged.

```json
{spec}
```

## Licence

Not stated by the tool that wrote this card. The records hold texts of the questions and of the teacher: what either
allows decides. Whoever hands them on writes `license:` into the first lines of this file.

## Reading

`molsaki cache import ADDRESS` checks every byte and adds the records to one's own store, where runs find them by the
fingerprint; ADDRESS is this folder, a tar file, or what fsspec can reach (`s3://…`, `gs://…`, `hf://datasets/…`).

{read}
"""


def write_card(space: Space) -> str:
    """Return README.md for an exported space."""
    summary = describe(space).summary
    layers = ", ".join(map(str, layers_of(space.commits())))
    facts: Mapping[str, str] = {
        "kind": space.kind,
        "fingerprint": f"`{space.fingerprint}`",
        **{name: _cell(space.spec[name]) for name in ("model", "dtype") if name in space.spec},
        "records" if space.kind == "attention" else "attempts": f"{summary.records:,} in {summary.parts:,} parts",
        "left out": f"{summary.dropped:,}, each with its reason in `commits/`",
        **({"layers": layers} if layers else {}),
        "size": f"{summary.bytes:,} bytes",
    }
    return CARD.format(
        title=json.dumps(f"{space.slug}: {space.kind} of a teacher"),
        name=space.slug,
        kind=space.kind,
        size=next((size for limit, size in SIZES if summary.records < limit), "n>1M"),
        what=WHAT[space.kind],
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        spec=json.dumps(space.spec, indent=1, ensure_ascii=False).replace("```", "'''"),
        read=READ[space.kind].replace("{folder}", "."),
    )


def _cell(value: JSON) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{text}`".replace("|", "\\|").replace("\n", " ")
