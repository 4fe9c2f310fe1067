"""The pictures of the documents: the report and the explorer of the demo's runs, in a real browser.

    python -m benchmarks.screenshots --demo demo

In: the folder of a finished `molsaki demo`. Out: `docs/pictures/report.png` and `docs/pictures/explorer.png`, in light
mode, at one and a half times the resolution of a page and reduced to 256 colours, which flat drawings do not lack. A
picture over 300 kB is an error: whoever clones the repository carries it. Needs `make setup-browser`.
"""

import argparse
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from pipeline.demo import NAME
from pipeline.views.choose import choose
from pipeline.views.explore import Selected, look_at, write_explorer
from pipeline.views.report import write_report
from tests.browser import Browser, start_chromium

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
WIDTH, HEIGHT, SCALE, COLOURS, LARGEST = 1200, 800, 1.5, 256, 300_000


def main() -> None:
    """Write both pictures and say how large they are."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder of a finished demo")
    demo = parser.parse_args().demo
    if not (demo / "runs" / NAME / "summary.json").is_file():
        sys.exit(f"error: {demo} holds no finished demo; make one with: molsaki demo --out {demo}")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        driver = start_chromium(Path(folder) / "profile")
        try:
            browser = Browser(driver)
            browser.prefer("light")
            report = write_report([NAME], demo / "runs", out=Path(folder) / "report.html")
            explorer = Path(folder) / "explore.html"
            write_explorer(look_at(choose(str(demo / "runs" / NAME / "objective=molsaki"))), Selected(), explorer)
            take(browser, report, "report.png", end_of("#layers"))
            take(browser, explorer, "explorer.png", lambda _: HEIGHT)
        finally:
            driver.quit()


def take(browser: Browser, page: Path, name: str, height: Callable[[Browser], int]) -> None:
    """One picture of the upper part of a page, which must have nothing to complain of."""
    browser.open(page)
    browser.resize(WIDTH, HEIGHT, scale=SCALE)
    browser.require_quiet()
    picture = Image.open(io.BytesIO(browser.screenshot())).convert("RGB")
    picture = picture.crop((0, 0, picture.width, round(height(browser) * SCALE)))
    path = PICTURES / name
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {picture.width} x {picture.height}, {size / 1000:.0f} kB")
    if size > LARGEST:
        sys.exit(f"error: {path}: {size:,} bytes, {LARGEST:,} at most")


def end_of(selector: str) -> Callable[[Browser], int]:
    """The page down to the end of its first such element."""
    measured = f"Math.ceil(document.querySelector('{selector}').getBoundingClientRect().bottom) + 16"
    return lambda browser: int(browser.evaluate(measured))


if __name__ == "__main__":
    main()
