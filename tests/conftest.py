"""What all rooms share: where the real benchmark data lies, if it is there; a browser (tests/browser.py); buckets
(tests/buckets.py); which tests belong together where several processes share them out."""

import multiprocessing.util
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

# Models in tests are so small that a second thread waits more than it helps, most of all on a busy machine. Before
# torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# vLLM would bind each engine to the first cores, and two of them side by side to the same ones.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
# Ray's workers would give way to whatever else runs, that is to the other half of the tests (`nice` 15 by default).
os.environ.setdefault("RAY_worker_niceness", "0")
# Where processes put their sockets, whose paths may have 107 characters: chosen once, before a test that gives
# temporary files a place of its own can be the first to start a process.
multiprocessing.util.get_temp_dir()

pytest_plugins = ("tests.browser", "tests.buckets")
WITH_RAY = ("test_contract.py", "test_engines_side_by_side.py", "test_ray_cluster.py")
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests of files that start engines, which take longest."""
    items.sort(key=lambda item: not engines_started(item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`: the files that start engines are two groups, each of which goes to one process.

    Ray's are one, and as long as all others that start vLLM; starting takes a core at a time, so that two go side by
    side. (pytest-xdist 3.8.0 has groups for this, by marks, which it does not see with pytest 9.2.)
    """
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return engines_started(config.rootpath / file) or file

    return Scheduling(config, log)


@cache
def engines_started(file: Path) -> str:
    """`ray` or `vllm` where any test of a file starts such an engine, else nothing."""
    if "mark.vllm" not in file.read_text(encoding="utf-8"):
        return ""
    return "ray" if file.name in WITH_RAY else "vllm"
