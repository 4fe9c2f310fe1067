"""HTML pages that people open from a file and pass on: one file each, which asks nobody for anything.

In: a template of `pipeline/pages/`, the values that it shows, and data for scripts. Out: one HTML file with its styles,
scripts and data inside, for `file://`, an e-mail or an archive ten years on.

What a page shows comes from data sets, models and configurations, and none of it is trusted:

- Jinja2 escapes every value in a template; `data` stands in `<script type="application/json">` elements, with `<`, `>`
  and `&` written so that nothing in it can end the element.
- The page's own policy (CSP) lets the browser run and apply exactly the scripts and styles that stand in it, known by
  their hashes, and load nothing. So there are no `style=""` or `onclick=""` attributes in templates either; SVG has
  attributes of its own for what a chart needs.
- The policy also makes `innerHTML` and its kin an error (trusted types): scripts build what they show with `element` of
  page.js, whose text is text.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cache.durable import make_folder, replace_file
from cache.fingerprints import JSON

PAGES = Path(__file__).parent / "pages"
STYLE, SCRIPT = "page.css", "page.js"
ENDS_ELEMENT = re.compile(r"</(script|style)", re.IGNORECASE)
UNSAFE_IN_SCRIPT = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
"""What could end the element, what older JavaScript takes for a line's end, and halves of characters, which UTF-8 has
no form for."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page: `template` extends `page.html`; `styles` and `scripts` are files that follow the shared ones.

    `values` are what the template names. `data` maps the id of an element to what `readData(id)` gives scripts.
    """

    title: str
    template: str
    values: Mapping[str, object] = field(default_factory=dict)
    data: Mapping[str, JSON] = field(default_factory=dict)
    styles: Sequence[str] = ()
    scripts: Sequence[str] = ()


def write_page(path: Path, page: Page) -> None:
    """Let `path` hold the page; whoever opens it finds an earlier one or this one in full."""
    make_folder(path.parent)
    replace_file(path, render(page).encode("utf-8", errors="replace"))


def render(page: Page) -> str:
    """The page as one HTML text."""
    style = _joined((STYLE, *page.styles))
    script = _joined((SCRIPT, *page.scripts))
    return _environment().get_template(page.template).render(
        page.values,
        page_title=page.title,
        page_policy=_policy(style, script),
        page_style=Markup(style),  # noqa: S704  files of this package
        page_script=Markup(script),  # noqa: S704
        page_data={name: embedded_json(value) for name, value in page.data.items()},
    )  # fmt: skip


def embedded_json(value: JSON) -> Markup:
    """`value` as JSON that can stand in a script element; raises `ValueError` for numbers that JSON does not have."""
    written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(UNSAFE_IN_SCRIPT.sub(lambda found: f"\\u{ord(found[0]):04x}", written))  # noqa: S704


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(PAGES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _joined(names: Sequence[str]) -> str:
    """Files of this package one after another, as they stand in one element."""
    text = "\n".join((PAGES / name).read_text(encoding="utf-8") for name in names)
    assert not ENDS_ELEMENT.search(text), f"{names} would end the element that they stand in"
    return text


def _policy(style: str, script: str) -> str:
    """Nothing from anywhere; of what stands in the page exactly this style and this script."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_source(style)}'",
            f"script-src '{_source(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _source(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
