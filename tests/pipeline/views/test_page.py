"""Pages hold what they are given as text, whatever it says, and a browser runs nothing but the page's own script."""

import json
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from pipeline.views import page
from pipeline.views.page import PAGES, Page, embedded_json, render, write_page
from tests.browser import Browser

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    "{{7*7}} {% raw %}",
    "javascript:alert(3)",
    '" onmouseover="alert(4)',
    "<!--<script>",
    "&lt;b&gt; \u2028 \u202e \x00",
    "https://example.org/a.png",
)
TEMPLATE = """\
{% extends "page.html" %}
{% block body %}
<h1 title="{{ text }}">{{ text }}</h1>
<p id="shown"></p>
<button>Dangerous</button>
{% endblock %}
"""
SCRIPT = """
document.getElementById("shown").append(...readData("texts").map((text) => element("b", {title: text}, text)));
document.querySelector("button").addEventListener("click", () => {
  document.getElementById("shown").innerHTML = "<img src=x onerror=alert(5)>";
});
"""


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of templates with `test.html` and `test.js` beside the shared ones."""
    folder = tmp_path / "pages"
    folder.mkdir()
    for shared in PAGES.glob("page.*"):
        (folder / shared.name).write_bytes(shared.read_bytes())
    (folder / "test.html").write_text(TEMPLATE)
    (folder / "test.js").write_text(SCRIPT)
    monkeypatch.setattr(page, "PAGES", folder)
    page._environment.cache_clear()
    yield folder
    page._environment.cache_clear()


def hostile_page(text: str) -> Page:
    return Page(title=text, template="test.html", values={"text": text}, data={"texts": [text]}, scripts=["test.js"])


def test_data_is_written_without_anything_that_could_end_its_element():
    assert embedded_json(["</script>", "a & b", "\u2028"]) == '["\\u003c/script\\u003e","a \\u0026 b","\\u2028"]'


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=4)))
def test_whatever_data_says_it_reads_back_and_holds_no_markup(value: object):
    written = embedded_json(value)
    assert json.loads(written) == value
    assert not set(written) & set("<>&\u2028\u2029")


def test_half_a_character_does_not_keep_a_page_from_being_written(tmp_path: Path):
    write_page(tmp_path / "new" / "page.html", Page(title="\ud800", template="page.html", data={"d": "\ud800"}))
    text = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "<title>?</title>" in text
    assert '"\\ud800"' in text


def test_numbers_that_json_does_not_have_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        embedded_json(float("nan"))


def test_a_value_that_a_template_needs_cannot_be_forgotten(templates: Path):
    with pytest.raises(UndefinedError, match="text"):
        render(Page(title="", template="test.html"))


def test_a_page_loads_nothing_and_has_no_attribute_that_its_policy_would_forbid(templates: Path):
    text = render(hostile_page("plain"))
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert "unsafe" not in policy[1]
    assert not re.search(r"\s(src|href|style|on\w+)=", text.partition("<script")[0])


def test_every_file_of_the_pages_is_installed_with_the_package():
    project = tomllib.loads((PAGES.parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["pipeline.views"]
    for path in PAGES.iterdir():
        assert any(fnmatch(f"pages/{path.name}", pattern) for pattern in patterns), path.name


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_text_and_nothing_else_happens(
    templates: Path, tmp_path: Path, browser: Browser, text: str
):
    write_page(tmp_path / "page.html", hostile_page(text))
    browser.open(tmp_path / "page.html")
    browser.require_quiet()
    shown = browser.evaluate("[...document.querySelectorAll('h1, b')].map(e => e.textContent)")
    assert shown == [text.replace("\x00", ""), text]  # HTML text has no NUL; data has
    assert browser.evaluate("document.querySelector('b').title") == text


def test_a_script_that_made_markup_of_text_would_be_stopped_and_noticed(
    templates: Path, tmp_path: Path, browser: Browser
):
    write_page(tmp_path / "page.html", hostile_page("plain"))
    browser.open(tmp_path / "page.html")
    browser.click("button")
    assert any("TrustedHTML" in complaint for complaint in browser.complaints)
    assert browser.all("img") == []
    assert browser.dialog is None


@pytest.mark.parametrize(
    ("inserted", "seen"),
    [
        ("<script>document.title = 'ran'</script>", "Content Security Policy"),
        ("<p style='color: red'>", "Content Security Policy"),
        ("<img src='https://example.org/a.png'>", "Content Security Policy"),
        ("<p onclick='1'>", "Content Security Policy"),
    ],
)
def test_what_a_template_should_not_do_shows_on_the_console(
    templates: Path, tmp_path: Path, browser: Browser, inserted: str, seen: str
):
    (templates / "test.html").write_text(TEMPLATE.replace("<button>", f"{inserted}<button>"))
    write_page(tmp_path / "page.html", hostile_page("plain"))
    browser.open(tmp_path / "page.html")
    if "onclick" in inserted:
        browser.evaluate("document.querySelector('p[onclick]').click()")
    assert any(seen in complaint for complaint in browser.complaints)
    assert browser.evaluate("document.title") == "plain"


def test_the_harness_sees_requests_and_dialogs(tmp_path: Path, browser: Browser):
    """Without our policy: what the tests above would miss if they were blind."""
    file = tmp_path / "open.html"
    file.write_text("<img src='https://example.org/a.png'><script>setTimeout(() => alert('here'))</script>")
    browser.open(file)
    for _ in range(50):
        if browser.dialog is not None:
            break
    assert browser.dialog == "here"
    browser.driver.switch_to.alert.accept()
    assert browser.foreign_requests == ["https://example.org/a.png"]


def test_dark_mode_and_paper_have_their_own_colours(tmp_path: Path, browser: Browser):
    write_page(tmp_path / "page.html", Page(title="empty", template="page.html"))
    browser.open(tmp_path / "page.html")
    light = browser.style("body", "background-color")
    browser.prefer("dark")
    dark = browser.style("body", "background-color")
    assert light != dark
    assert browser.pdf().startswith(b"%PDF")
    browser.require_quiet()
