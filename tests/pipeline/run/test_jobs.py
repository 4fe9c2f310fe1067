"""Students side by side: who takes which, what is shown of several processes, and what each gets of the machine."""

import os
from pathlib import Path

import pytest

from pipeline.run.jobs import Claims, Watch, said_by, threads_each
from stages.runtime.progress import SilentProgress


class Seen(SilentProgress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.done = 0

    def advance(self, count: int = 1) -> None:
        self.done += count

    def note(self, message: str) -> None:
        self.said.append(message)


def test_each_student_is_taken_by_one_process_and_counts_when_it_is_done(tmp_path: Path):
    claims, seen = Claims(folder=tmp_path), Seen()
    watch = Watch(seen, "train", 2, tmp_path, [])
    with claims.of("a", 0) as mine:
        with Claims(folder=tmp_path).of("a", 0) as again, claims.of("a", 1) as other, claims.of("b", 0) as third:
            assert [one.mine for one in (mine, again, other, third)] == [True, False, True, True]
        watch()
        assert seen.done == 2
    with pytest.raises(ValueError, match="broken"), claims.of("b", 1):
        raise ValueError("broken")
    watch()
    assert seen.done == 3
    with claims.of("c", 0) as finished:
        finished.had_work = False
    watch()
    assert seen.done == 3, "what was there before is not counted"
    with Claims().of("a", 0) as alone:
        assert alone.mine, "without a folder nobody else is there"


def test_whole_lines_of_all_processes_are_shown_and_the_rest_when_it_comes(tmp_path: Path):
    seen = Seen()
    with said_by(tmp_path, 2) as (written, read):
        watch = Watch(seen, "train", 2, tmp_path, read)
        written[0].write(b"one\ntw")
        written[1].write("ö\n".encode())
        watch()
        assert seen.said == ["one", "ö"]
        written[0].write(b"o\n")
        watch()
    assert seen.said == ["one", "ö", "two"]


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert [threads_each(count) for count in (1, 2, 3, 8, 20)] == ["8", "4", "2", "1", "1"]
