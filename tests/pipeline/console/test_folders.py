"""A store or a run's folder that cannot be written is named in one line, before the teacher is asked."""

import errno
import os
from pathlib import Path

import pytest

from data.errors import ConfigError, DamagedCacheError
from pipeline.console.exits import folder_of
from tests.pipeline.conftest import Experiment


@pytest.mark.parametrize("store", ["file", "file/below", "/proc/nothing-is-made-here"])
def test_a_store_that_cannot_be_made_is_named(experiment: Experiment, store: str) -> None:
    Path("file").write_text("in the way")
    result = experiment("rationales", "run.yaml", "--set", f"store={store}")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"error: store: {store} cannot be written (")
    assert "Traceback" not in result.output


def test_a_store_that_can_only_be_read_is_named_before_anything_is_asked(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment("rationales", "run.yaml", "--set", "data.train.0.limit=2")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "store" not in str(path) and access(path, mode))
    result = experiment("rationales", "run.yaml")
    assert result.exit_code == 2 and "error: store: store cannot be written (Permission denied: " in result.stderr
    assert experiment("rationales", "run.yaml", "--set", "data.train.0.limit=2").exit_code == 0, "it has all it needs"


def test_a_place_of_runs_that_cannot_be_written_is_named(experiment: Experiment) -> None:
    result = experiment("rationales", "run.yaml", "--runs", "/proc/nothing-is-made-here")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: the run's folder /proc/nothing-is-made-here/small cannot be written (")
    assert "--runs" in result.stderr and "Traceback" not in result.output


def test_a_full_disk_and_our_own_errors_stay_what_they_are() -> None:
    for error in (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "part"), DamagedCacheError("part: odd")):
        with pytest.raises(type(error)) as caught, folder_of("store: s", "name another"):
            raise error
        assert caught.value is error and not isinstance(caught.value, ConfigError)
