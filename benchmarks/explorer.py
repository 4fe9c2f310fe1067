"""How quick the page of `molsaki explore` is with many records: measured in a real browser.

    python -m benchmarks.explorer --records 2000

In: nothing; a store of made-up word problems is written for it, with made-up attention of so many layers in which no
step looks at a later word, and made-up students. Out: the size of the page with all records and of the one made by
default, and the median and largest milliseconds, over `--repeats` rounds, of what a reader does: typing a letter into
the search, scrolling the list, opening a record, switching the layer, moving over a cell. Each is the time from the
event until its handlers have run and the browser has computed styles and layout anew. Needs `make setup-browser`.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from selenium import webdriver

from cache.keys import record_key
from cache.reader import AttentionStore
from cache.spaces import Space
from cache.student_attention import StudentLook
from cache.writer import AttentionBlock, AttentionWriter
from data.marking import mark
from data.records import Marked
from data.sets.synthetic import synthetic_questions
from pipeline.views.choose import Chosen
from pipeline.views.explore import Explored, Selected, write_explorer
from tests.browser import start_chromium

MEASURE = """
const [repeats, done] = [arguments[0], arguments[arguments.length - 1]];
const pause = () => new Promise((resume) => setTimeout(resume, 20));
const laid = () => document.body.offsetHeight + document.getElementById("maps").offsetHeight;
const took = async (act) => {
  const begun = performance.now();
  await act();
  laid();
  const taken = performance.now() - begun;
  await pause();
  return taken;
};
const key = (name) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
const opened = async (act) => {
  const before = document.getElementById("facts").textContent;
  act();
  while (document.getElementById("facts").textContent === before) await new Promise((resume) => setTimeout(resume));
};
const search = document.getElementById("search");
const type = (text) => { search.value = text; search.dispatchEvent(new Event("input")); };
(async () => {
  const found = { search: [], scroll: [], open: [], layer: [], hover: [] };
  for (let round = 0; round < repeats; round += 1) {
    for (const text of ["h", "ha", "has", "has 7", "nothing has this", ""]) {
      found.search.push(await took(() => type(text)));
    }
    for (let at = 1; at < 6; at += 1) {
      found.scroll.push(await took(() => { list.scrollTop = (at * list.scrollHeight) / 6; drawRows(); }));
    }
    for (let at = 0; at < 5; at += 1) found.open.push(await took(() => opened(() => key("j"))));
    for (let at = 0; at < 5; at += 1) found.layer.push(await took(() => key("ArrowRight")));
    for (const cell of [...document.querySelectorAll(".cell")].slice(0, 5)) {
      found.hover.push(await took(() => cell.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }))));
    }
  }
  done(found);
})();
"""


def main() -> None:
    """Write the pages, drive them, print figures."""
    parser = argparse.ArgumentParser(description="Speed and size of the explorer's page.")
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--student-layers", type=int, default=22)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        explored = made_up(Path(place), options.records, options.layers, options.student_layers)
        for name, selected in (("all", Selected(records=options.records)), ("default", Selected())):
            page = Path(place) / f"{name}.html"
            print(json.dumps({"page": name, **asdict(write_explorer(explored, selected, page))}))
        driver = start_chromium(Path(place) / "profile")
        try:
            print(json.dumps(measured(driver, Path(place) / "all.html", options.repeats)))
        finally:
            driver.quit()


def measured(driver: webdriver.Chrome, page: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Median and largest milliseconds of each action, and how long the page took to be there."""
    driver.set_window_size(1440, 900)
    driver.set_script_timeout(300)
    driver.get(page.as_uri())
    loaded = driver.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    found = driver.execute_async_script(MEASURE, repeats)
    actions = {name: {"median_ms": np.median(taken), "largest_ms": max(taken)} for name, taken in found.items()}
    return {
        "load": {"ms": round(loaded)},
        **{name: {which: round(float(ms), 1) for which, ms in both.items()} for name, both in actions.items()},
    }


def made_up(store: Path, count: int, layers: int, student_layers: int) -> Explored:
    """A store of so many records and the students of a run on 200 of them."""
    questions = synthetic_questions(count, seed=0, split="train")
    records = [mark(one.text, f"{one.reference} The answer is {one.answer}.") for one in questions]
    records = list({record_key(one): one for one in records}.values())
    source = np.random.default_rng(0)
    writer = AttentionWriter(Space.open_or_create(store, "attention", "made-up", {"schema": 1, "model": "made up"}))
    writer.append([_block(record, made_up_attention(record, layers, source)) for record in records])
    attention = AttentionStore.open(writer.space.path)
    seen = sorted(attention)[:200]
    students = {}
    for seed in (0, 1):
        looks: dict[str, dict[str, StudentLook]] = {}
        for key in seen:
            for when in ("before", "after"):
                looks.setdefault(key, {})[when] = StudentLook(
                    key=key,
                    when=when,
                    attention=made_up_attention(attention.marked(key), student_layers, source).astype(np.float16),
                    layer_weights=source.dirichlet(np.full(student_layers, 0.5)).astype(np.float32),
                )
        students[seed] = looks
    chosen = Chosen(attention=attention, keys=tuple(attention))
    return Explored(chosen=chosen, runs={chosen.name: students})


def _block(record: Marked, attention: np.ndarray) -> AttentionBlock:
    tokens = np.array([1 + (end - start) // 4 for start, end in record.step_spans], dtype=np.int32)
    return AttentionBlock(key=record_key(record), marked=record, attention=attention, step_tokens=tokens)


def made_up_attention(record: Marked, layers: int, source: np.random.Generator) -> np.ndarray:
    """Uneven, and never at a word that comes after the step."""
    shape = layers, len(record.step_spans), len(record.critical_spans)
    attention = source.gamma(0.4, 0.5, shape) * source.gamma(1.0, 1.0, (layers, 1, 1))
    for step, (_, end) in enumerate(record.step_spans):
        for word, (start, _) in enumerate(record.critical_spans):
            if start >= end:
                attention[:, step, word] = 0
    return attention


if __name__ == "__main__":
    main()
