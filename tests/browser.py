"""A real browser for tests of pages: Debian's chromium without a window, driven by the chromedriver that belongs to it.

In: HTML files. Out: what a reader would see and do (text, clicks, keys, dark mode, paper), and what nobody should:
errors on the console, dialogs, and requests for anything but the file itself. `make setup-browser` installs what is
needed. Tests are skipped where there is none, unless MOLSAKI_BROWSER=required says that this would be a mistake.
"""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which needs more than root in a container has; pages of tests are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # a page that asks the network gets no answer, and the test sees that
)
OWN_SCHEMES = ("file:", "data:", "blob:")


class Browser:
    """One window. What its console said and what its pages asked for is kept from `open` on."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self._complaints: list[str] = []
        self._requests: list[str] = []

    def open(self, path: Path) -> None:
        """Open a file, and forget what an earlier one said."""
        self._drain()
        self._complaints, self._requests = [], []
        self.driver.get(path.resolve().as_uri())

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings on the console: scripts that failed, and what the page's policy forbade."""
        self._drain()
        return self._complaints

    @property
    def foreign_requests(self) -> list[str]:
        """Addresses that the page asked for and that are not its own file."""
        self._drain()
        return [address for address in self._requests if not address.startswith(OWN_SCHEMES)]

    @property
    def dialog(self) -> str | None:
        """The text of an open dialog, as hostile text would like to open; None where there is none."""
        try:
            return self.driver.switch_to.alert.text
        except NoAlertPresentException:
            return None

    def require_quiet(self) -> None:
        """Nothing has gone wrong, nothing was asked of anybody, nothing has popped up."""
        assert self.dialog is None
        assert self.complaints == []
        assert self.foreign_requests == []

    def find(self, selector: str) -> WebElement:
        """The first element of a CSS selector; an error where there is none."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """All elements of a CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """What can be read in each of them; nothing where it is folded away."""
        return [found.text for found in self.all(selector)]

    def click(self, selector: str) -> None:
        """Click where a reader would."""
        self.find(selector).click()

    def hover(self, selector: str) -> None:
        """Move the mouse there."""
        ActionChains(self.driver).move_to_element(self.find(selector)).perform()

    def type(self, selector: str, text: str) -> None:
        """Type into a field."""
        self.find(selector).send_keys(text)

    def press(self, *keys: str) -> None:
        """Press keys, of `selenium.webdriver.common.keys.Keys` or characters, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def evaluate(self, expression: str, *arguments: object) -> Any:
        """The value of a JavaScript expression, which knows `arguments`."""
        return self.driver.execute_script(f"return {expression}", *arguments)

    def style(self, selector: str, name: str) -> str:
        """A computed style of the first such element."""
        return str(self.find(selector).value_of_css_property(name))

    def prefer(self, scheme: Literal["light", "dark"]) -> None:
        """Be on a system in light or dark mode."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": features})

    def resize(self, width: int, height: int = 900, scale: float = 1) -> None:
        """Make the page's area so wide and high in CSS pixels, each of `scale` times `scale` of the screen's."""
        shape = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)

    def pdf(self) -> bytes:
        """The page on paper."""
        return base64.b64decode(self.driver.print_page())

    def screenshot(self) -> bytes:
        """A PNG of the whole page, not only of what fits the window."""
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        return base64.b64decode(taken["data"])

    def _drain(self) -> None:
        self._complaints += [
            f"{entry['level']}: {entry['message']}"
            for entry in self.driver.get_log("browser")
            if entry["level"] in {"SEVERE", "WARNING"}
        ]
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                self._requests.append(event["params"]["request"]["url"])


def start_chromium(profile: Path) -> webdriver.Chrome:
    """A chromium with a new, empty profile; raises `FileNotFoundError` where there is none."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        raise FileNotFoundError("no chromium with chromedriver on the PATH; install them with: make setup-browser")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.set_capability("unhandledPromptBehavior", "ignore")  # a dialog stays for the test to see
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=chromedriver))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """The browser that the tests of a module share."""
    try:
        driver = start_chromium(tmp_path_factory.mktemp("chromium"))
    except FileNotFoundError as error:
        if os.environ.get("MOLSAKI_BROWSER") == "required":
            raise
        pytest.skip(str(error))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome) -> Iterator[Browser]:
    """A window in light mode, 1,280 pixels wide."""
    browser = Browser(chromium)
    browser.prefer("light")
    browser.resize(1280)
    yield browser
    chromium.get("about:blank")
