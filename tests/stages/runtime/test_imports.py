"""Imports without a search for garbage: it rests inside and goes on behind them."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from stages.runtime.imports import COUNTS_ITS_OBJECTS, importing, leave_garbage

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


@pytest.fixture
def new_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "never_imported.py").write_text("made = [[] for _ in range(3000)]\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield "never_imported"
    sys.modules.pop("never_imported", None)


def test_nothing_is_searched_inside_and_what_was_loaded_is_left_out_of_later_searches(new_module: str) -> None:
    searches: list[str] = []
    gc.callbacks.append(lambda phase, _: searches.append(phase))
    try:
        with importing():
            __import__(new_module)
            assert not gc.isenabled()
    finally:
        gc.callbacks.pop()
    assert searches == []
    assert gc.isenabled()
    assert gc.get_freeze_count() > 3000


def test_where_all_is_loaded_what_was_made_since_can_still_be_garbage() -> None:
    before = gc.get_freeze_count()
    with importing():
        __import__("json")
    assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_an_import_that_fails_leaves_the_search_on() -> None:
    with pytest.raises(ModuleNotFoundError), importing():
        __import__("no_such_module_anywhere")
    assert gc.isenabled()


def test_one_inside_another_and_a_search_that_was_off_stay_as_they_were(new_module: str) -> None:
    with importing():
        with importing():
            __import__(new_module)
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    with importing():
        pass
    assert not gc.isenabled()


def test_a_process_ends_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, COUNTS_ITS_OBJECTS, raising=False)
    gc.unfreeze()
    leave_garbage()
    assert gc.get_freeze_count() > 3000


def test_a_library_that_complains_of_what_is_left_finds_all_of_it_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, COUNTS_ITS_OBJECTS, ModuleType(COUNTS_ITS_OBJECTS))
    gc.freeze()
    leave_garbage()
    assert gc.get_freeze_count() == 0


def test_a_process_that_has_loaded_transformers_ends_in_silence() -> None:
    """With and without Triton, whose nanobind would write of leaks."""
    code = (
        "from stages.runtime.imports import end_without_searching, importing\n"
        "end_without_searching()\n"
        "with importing():\n    import transformers.modeling_utils"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
