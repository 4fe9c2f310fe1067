"""The card of an exported space: a space enters, README.md leaves, Markdown as `card.jinja` has it.

It is for somebody who has found the files and nothing else. The lines between `---` are read by the Hugging Face hub.
The licence is for whoever hands the records on to state: it depends on the teacher and on the questions.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from cache.fingerprints import JSON
from cache.spaces import Space, describe, layers_of

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
TEMPLATE = Path(__file__).with_name("card.jinja")


def write_card(space: Space) -> str:
    """Return README.md for an exported space."""
    from jinja2 import Environment, StrictUndefined  # who exports nothing needs none of it

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
    markdown = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True, autoescape=False)  # noqa: S701  Markdown
    return markdown.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=json.dumps(f"{space.slug}: {space.kind} of a teacher"),
        name=space.slug,
        kind=space.kind,
        size=next((size for limit, size in SIZES if summary.records < limit), "n>1M"),
        facts=facts,
        spec=json.dumps(space.spec, indent=1, ensure_ascii=False).replace("```", "'''"),
    )


def _cell(value: JSON) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{text}`".replace("|", "\\|").replace("\n", " ")
