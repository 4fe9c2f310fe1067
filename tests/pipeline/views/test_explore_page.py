"""The explorer in a real browser: read, searched, pointed at and steered by keys; hostile text stays text."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from cache.keys import record_key
from data.marking import mark
from data.records import Marked, Question, Rationale
from pipeline.views.explore import Explored, Selected, write_explorer
from pipeline.views.page import PAGES
from stages.figures.attention_shares import record_layer_weights
from tests.browser import Browser
from tests.pipeline.views.explorer_records import ASTRAL, FIGS, HOSTILE, HOSTILE_WORDS, LAYERS, PENS, RECORDS, explored

Open = Callable[..., Browser]
SHADE = "[...document.querySelectorAll('#maps .teacher .cell')].map(cell => cell.style.backgroundColor)"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Explored:
    return explored(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def page(made: Explored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "explore.html"
    write_explorer(made, Selected(), path)
    return path


@pytest.fixture
def reader(page: Path, browser: Browser) -> Open:
    """Opens the page, at a fragment if one is given, and waits until a record is there."""

    def start(fragment: str = "") -> Browser:
        browser.open(page)
        if fragment:
            browser.evaluate("(location.hash = arguments[0])", fragment)
            browser.driver.refresh()
        shows(browser, "document.querySelectorAll('.cell').length > 0")
        return browser

    return start


def shows(browser: Browser, condition: str) -> None:
    """Wait until something holds on the page."""
    WebDriverWait(browser.driver, 20).until(lambda _: browser.evaluate(condition), condition)


def opened(browser: Browser, marked: Marked) -> None:
    """Wait until a record is open."""
    shows(browser, f"document.querySelector('#facts code')?.title === '{record_key(marked)}'")


def cell(step: int, word: int, of: str = "teacher") -> str:
    """The cell of a step and a word, both from 1."""
    return f"#maps .{of} .cell[data-step='{step - 1}'][data-word='{word - 1}']"


def lit(browser: Browser) -> list[str]:
    return browser.texts("#text .lit")


def readout(browser: Browser) -> str:
    return browser.find("#readout").text


def test_a_record_is_its_steps_in_two_parts_with_its_words_marked(reader: Open):
    browser = reader()
    assert browser.texts("#text h3") == ["Question", "Rationale"]
    expected = [FIGS.text[start:end].strip() for start, end in FIGS.step_spans]
    assert browser.texts("#text .said") == expected
    assert browser.texts("#text .step-number") == ["1", "2", "3", "4", "5"]
    assert browser.texts("#text mark") == [FIGS.text[start:end] for start, end in FIGS.critical_spans]
    assert browser.evaluate("document.querySelectorAll('#text ol')[0].children.length") == 3
    browser.require_quiet()


def test_a_click_opens_a_record(reader: Open):
    browser = reader()
    assert len(browser.all(".row")) == len(RECORDS)
    browser.click(".row[data-record='1']")
    opened(browser, PENS)
    assert browser.texts("#text .said")[0] == "Tom had 10 pens."
    assert browser.evaluate("document.querySelector('.row[aria-selected=true]').dataset.record") == "1"
    assert record_key(PENS)[:12] in browser.evaluate("location.hash")
    browser.require_quiet()


def test_pointing_at_a_cell_lights_up_its_step_and_word_and_says_its_numbers(reader: Open, made: Explored):
    browser = reader("#layer=2&student=3")
    browser.hover(cell(4, 2))
    assert lit(browser) == ["8", "4\n3 + 2 = 5."]
    teacher = made.chosen.attention[record_key(FIGS)][1, 3, 1]
    looks = made.runs[made.name][0][record_key(FIGS)]
    numbers = [teacher, looks["before"].attention[2, 3, 1], looks["after"].attention[2, 3, 1]]
    said = readout(browser)
    assert said.startswith("Step 4 looks at “8” (word 2 of 7): teacher ")
    found = [float(one) for one in re.findall(r"(?:teacher|before|after) ([\d.e-]+)", said)]
    np.testing.assert_allclose(found, numbers, rtol=0.006)
    assert len(browser.all(".cell.lit")) == 3, "in every map"
    browser.hover("#title")
    assert lit(browser) == [] and readout(browser) == ""
    browser.require_quiet()


def test_pointing_at_the_text_shows_where_a_step_looks_and_who_looks_at_a_word(reader: Open, made: Explored):
    browser = reader("#layer=1")
    browser.hover("#text li[data-step='3'] .step-number")
    row = made.chosen.attention[record_key(FIGS)][0, 3]
    best = max(range(7), key=lambda word: row[word])
    start, end = FIGS.critical_spans[best]
    assert readout(browser).startswith(f"Step 4, teacher, looks most at “{FIGS.text[start:end]}” (")
    assert browser.evaluate(f"document.querySelector(\"mark[data-word='{best}']\").style.backgroundColor") != ""
    assert (
        browser.evaluate("document.querySelector(\"mark[data-word='6']\").style.backgroundColor") == ""
    )  # comes later
    browser.hover("#text mark[data-word='0']")
    column = made.chosen.attention[record_key(FIGS)][0, :, 0]
    assert readout(browser).startswith(f"“3”, teacher, is looked at most by step {int(column.argmax()) + 1} (")


def test_a_word_that_comes_later_is_no_number(reader: Open):
    browser = reader()
    assert browser.evaluate("document.querySelectorAll('#maps .teacher .cell.never').length") == 14
    browser.hover(cell(1, 3))
    assert readout(browser) == "Step 1 ends before “2” (word 3 of 7) and cannot look at it"


def test_layers_are_switched_and_the_mixture_is_that_of_equation_4(reader: Open, made: Explored):
    browser = reader()
    block = made.chosen.attention[record_key(FIGS)].astype(np.float64)
    mixed = np.tensordot(record_layer_weights(block, made.chosen.tau), block, axes=1)
    values = "open.maps[0].cellElements.map((_, cell) => open.maps[0].cells[cell])"
    np.testing.assert_allclose(browser.evaluate(values), mixed.reshape(-1), rtol=1e-4)
    colours = browser.evaluate(SHADE)
    assert browser.find("#maps .teacher .which").text == "mixture of 5 layers"
    browser.click("#maps .teacher .bar[data-layer='3']")
    assert browser.find("#maps .teacher .which").text.startswith("layer 3 of 5, weight 0.")
    np.testing.assert_array_equal(browser.evaluate(values), block[2].reshape(-1))
    assert browser.evaluate(SHADE) != colours
    assert "layer=3" in browser.evaluate("location.hash")
    browser.click("#maps .teacher .layers button")
    assert browser.evaluate(SHADE) == colours
    browser.require_quiet()


def test_students_stand_beside_the_teacher_and_what_changed_beside_them(reader: Open, made: Explored):
    browser = reader()
    assert browser.texts("#maps h3") == ["Teacher", "Student before training", "Student after training"]
    browser.click("#toggle-change")
    shows(browser, "document.querySelectorAll('.map').length === 4")
    looks = made.runs[made.name][0][record_key(FIGS)]
    before, after = (
        np.tensordot(look.layer_weights, look.attention.astype(np.float64), axes=1)
        for look in (looks["before"], looks["after"])
    )
    found = browser.evaluate("[...open.maps[3].cells]")
    np.testing.assert_allclose(found, (after - before).reshape(-1), atol=1e-6)
    browser.find("#seed").send_keys("1")
    shows(browser, "state.seed === '1' && open.maps.length === 4")
    other = made.runs[made.name][1][record_key(FIGS)]["after"].attention
    browser.evaluate("document.activeElement.blur()")
    ActionChains(browser.driver).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    assert browser.find("#maps .after .which").text == "layer 1 of 3, weight 0.500"
    np.testing.assert_array_equal(browser.evaluate("[...open.maps[2].cells]"), other[0].reshape(-1))
    browser.require_quiet()


def test_students_of_a_matrix_are_chosen_by_point_and_seed(browser: Browser, made: Explored, tmp_path: Path):
    looks = made.runs[made.name]
    few = {0: {record_key(FIGS): looks[0][record_key(FIGS)]}}
    points = {"dss": few, "molsaki, mixture": {0: looks[1], 1: looks[0]}}
    write_explorer(Explored(chosen=made.chosen, runs=points, left_out=7), Selected(), tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    opened(browser, FIGS)
    assert "3 of 10 students" in browser.find(".finder header").text
    expected = ["dss, seed 0, before training", "dss, seed 0, after training"]
    assert browser.texts("#maps h3") == ["Teacher", *expected]
    assert browser.texts("#point option") == ["dss", "molsaki, mixture"] and browser.all("#seed") == []
    browser.find("#point").send_keys("m")
    shows(browser, "document.querySelectorAll('#seed option').length === 2")
    browser.find("#seed").send_keys("1")
    shows(
        browser, "document.querySelectorAll('#maps h3')[2].textContent === 'molsaki, mixture, seed 1, after training'"
    )
    browser.evaluate("document.activeElement.blur()")
    ActionChains(browser.driver).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    other = looks[0][record_key(FIGS)]["after"].attention
    np.testing.assert_array_equal(browser.evaluate("[...open.maps[2].cells]"), other[0].reshape(-1))
    assert "point=molsaki%2C+mixture&seed=1" in browser.evaluate("location.hash")
    browser.driver.refresh()
    shows(browser, "document.querySelectorAll('.map').length === 3")
    assert browser.evaluate("[state.run, state.seed]") == ["molsaki, mixture", "1"]
    browser.press("j")
    opened(browser, PENS)
    browser.find("#point").send_keys("d")
    shows(browser, "document.querySelectorAll('.map').length === 1")
    assert "This student was not asked about this record." in browser.find("#controls").text
    browser.find("#point").send_keys("m")
    shows(browser, "document.querySelectorAll('.map').length === 3")
    browser.require_quiet()


def test_one_scale_for_all_layers(reader: Open, made: Explored):
    browser = reader("#layer=1")
    block = made.chosen.attention[record_key(FIGS)]
    top = "Number(document.querySelector('.teacher .legend').lastChild.textContent)"
    assert browser.evaluate(top) == pytest.approx(float(block[0].max()), rel=0.006)
    browser.press("s")
    assert browser.evaluate(top) == pytest.approx(float(block.max()), rel=0.006)


def test_search_finds_words_in_any_order_and_says_how_many(reader: Open):
    browser = reader()
    browser.type("#search", "PENS ten")
    assert browser.find("#count").text == "0 found"
    browser.evaluate("document.getElementById('search').select()")
    browser.type("#search", "left tom")
    assert browser.find("#count").text == "1 found"
    assert len(browser.all(".row")) == 1
    browser.press(Keys.ENTER)
    opened(browser, PENS)
    browser.press("/")
    browser.press(Keys.ESCAPE)
    assert len(browser.all(".row")) == len(RECORDS)
    browser.require_quiet()


def test_everything_is_done_by_keys(reader: Open):
    browser = reader()
    browser.press("j")
    opened(browser, PENS)
    browser.press("j")
    opened(browser, ASTRAL)
    browser.press("k", Keys.ARROW_UP)
    opened(browser, FIGS)
    browser.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert browser.find("#maps .teacher .which").text.startswith("layer 2 of")
    browser.press(*[Keys.ARROW_RIGHT] * 9)
    assert browser.find("#maps .teacher .which").text.startswith(f"layer {LAYERS} of")
    browser.press("m")
    assert browser.find("#maps .teacher .which").text.startswith("mixture")
    browser.press("g", Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert lit(browser) == ["8", "4\n3 + 2 = 5."]
    assert browser.evaluate("document.activeElement.getAttribute('aria-label')") == readout(browser)
    assert "step=4&word=2" in browser.evaluate("location.hash")
    assert browser.style(".cell:focus", "outline-style") == "solid"
    browser.press(Keys.ESCAPE)
    assert lit(browser) == [] and browser.evaluate("document.activeElement.id") == "list"
    browser.press("?")
    assert browser.evaluate("document.getElementById('help').open")
    browser.press(Keys.ESCAPE)
    assert not browser.evaluate("document.getElementById('help').open")
    browser.require_quiet()


def test_the_address_brings_everything_back(reader: Open):
    key = record_key(PENS)[:12]
    browser = reader(f"#record={key}&layer=4&student=2&seed=1&scale=shared&change=yes&step=5&word=1")
    opened(browser, PENS)
    assert lit(browser) == ["10", "5\n10 - 4 = 6."]
    assert browser.find("#maps .teacher .which").text.startswith("layer 4 of")
    assert browser.find("#maps .after .which").text.startswith("layer 2 of")
    assert browser.evaluate("[state.seed, state.shared, state.change]") == ["1", True, True]
    browser.require_quiet()


@pytest.mark.parametrize(
    "fragment",
    ["#record=<script>", "#layer=99&step=99&word=-1&seed=x", "#record=&layer=1e3", "#__proto__=1&student=0x2"],
)
def test_an_address_that_makes_no_sense_opens_the_first_record(reader: Open, fragment: str):
    browser = reader(fragment)
    opened(browser, FIGS)
    assert lit(browser) == []
    browser.require_quiet()


@pytest.mark.parametrize("marked", [*HOSTILE, HOSTILE_WORDS], ids=range(5))
def test_hostile_text_is_shown_as_text(reader: Open, marked: Marked):
    browser = reader(f"#record={record_key(marked)[:12]}")
    opened(browser, marked)
    shown = browser.evaluate("[...document.querySelectorAll('#text .said')].map(said => said.textContent)")
    assert shown == [marked.text[start:end].strip() for start, end in marked.step_spans]
    words = browser.evaluate("[...document.querySelectorAll('#maps .teacher .head.word')].map(head => head.title)")
    assert words == [marked.text[start:end] for start, end in marked.critical_spans]
    browser.hover(cell(1, 1))
    assert browser.all("#text img, #text svg, #text script, #text b, .head b, #readout b") == []
    browser.require_quiet()


def test_names_from_a_data_set_are_text(browser: Browser, tmp_path: Path):
    name = "<img src=x onerror=alert(6)>"
    asked = Question(id=name, dataset="<b>set</b>", text=FIGS.question, answer=name, answer_kind="text")
    origin = Rationale(question=asked, text=FIGS.rationale, answer=name, phase="gold_shown")
    known = {(FIGS.question, FIGS.rationale): origin}
    write_explorer(replace(explored(tmp_path, [FIGS]), origins=known), Selected(), tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    opened(browser, FIGS)
    assert browser.find("#title").text == f"<b>set</b> {name}"
    assert browser.find("#facts").text.startswith(f"answer {name} · written with the answer in sight · 5 steps")
    assert name in browser.find(".row small").text
    assert browser.all("img, main b") == []
    browser.require_quiet()


def test_characters_beyond_16_bits_do_not_shift_steps_and_words(reader: Open):
    browser = reader(f"#record={record_key(ASTRAL)[:12]}")
    opened(browser, ASTRAL)
    assert browser.texts("#text .said") == [ASTRAL.text[start:end].strip() for start, end in ASTRAL.step_spans]
    assert browser.texts("#text mark") == ["7", "2", "2", "7"]


def test_dark_mode_has_its_own_colours_at_once(reader: Open):
    browser = reader()
    light = browser.evaluate(SHADE)
    browser.prefer("dark")
    shows(browser, f"({SHADE})[0] !== '{light[0]}'")
    browser.require_quiet()


def test_on_paper_there_is_the_record_alone_in_the_colours_of_paper(reader: Open):
    browser = reader()
    light = browser.evaluate(SHADE)
    browser.prefer("dark")
    shows(browser, f"({SHADE})[0] !== '{light[0]}'")
    dark = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    shows(browser, f"({SHADE})[0] === '{light[0]}'")
    assert [browser.style(part, "display") for part in (".finder", "#controls")] == ["none", "none"]
    assert browser.style("body", "background-color") == "rgba(255, 255, 255, 1)"


def test_a_narrow_window_is_not_wider_than_itself(reader: Open):
    browser = reader("#change=yes")
    browser.resize(390)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_long_list_holds_few_rows_and_scrolls_to_any(browser: Browser, tmp_path: Path):
    numbers = range(600)
    records = [mark(f"Ann has {number} figs. How many?", "She has them.") for number in numbers]
    write_explorer(explored(tmp_path, records, students=()), Selected(), tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    shows(browser, "document.querySelectorAll('.cell').length > 0")
    assert len(browser.all(".row")) < 40
    assert browser.find(".row").get_attribute("aria-setsize") == "600"
    browser.evaluate("(document.getElementById('list').scrollTop = 1e6)")
    shows(browser, "document.querySelector('.row[data-record=\"599\"]') !== null")
    browser.click(".row[data-record='599']")
    opened(browser, records[599])
    assert browser.all("#toggle-change") == []
    browser.require_quiet()


def lightness(colour: str) -> float:
    """CIE L* of a colour written as six hex digits."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_colours_change_in_lightness_evenly_so_that_no_hue_has_to_be_told_apart(mode: str):
    script = (PAGES / "explore.js").read_text(encoding="utf-8")
    scales = re.findall(rf"^  {mode}: \[(.*)\],$", script, re.MULTILINE)
    sequential, diverging = ([lightness(one) for one in re.findall("#[0-9a-f]{6}", scale)] for scale in scales)
    steps = np.diff(sequential)
    assert abs(sum(steps)) > 70
    np.testing.assert_allclose(steps, steps.mean(), atol=1.5)
    middle = len(diverging) // 2
    low, high = diverging[: middle + 1], diverging[middle:][::-1]
    np.testing.assert_allclose(low, high, atol=1.5)  # so much less looks as strong as so much more
