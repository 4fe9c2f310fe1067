"""What all rooms share: where the real benchmark data lies, if it is there; a browser (tests/browser.py); which tests
belong together where several processes share them out."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Models in tests are so small that a second thread waits more than it helps, most of all on a busy machine. Before
# torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray reads this when it is imported, which tests do before the engine does: stages/engines/kinds/ray.py says what for.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

pytest_plugins = ("tests.browser",)
BESIDE_REPOSITORY = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """Folder with the real data sets; tests that read it are skipped where it is absent."""
    folder = Path(os.environ.get("MOLSAKI_DATA", BESIDE_REPOSITORY))
    if not folder.is_dir():
        pytest.skip(f"no benchmark data in {folder.name}: set MOLSAKI_DATA to the folder that holds svamp/, gsm8k/, …")
    return folder


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a command sets for the libraries of its process, and so for all that this one starts, ends with the test."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of a file, and all files that start engines, in one process each, the engines' first.

    They take longest; and two engines at once would only take the cores from each other.
    """
    engines = {item.path for item in items if item.get_closest_marker("vllm")}
    items.sort(key=lambda item: item.path not in engines)
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            item.add_marker(pytest.mark.xdist_group("engines" if item.path in engines else item.path.stem))
