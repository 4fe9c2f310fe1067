"""What a process and those that it starts have used."""

import subprocess
import sys
import time
from pathlib import Path

from pipeline.run.usage import Usage, disk_bytes

MANY = 150 << 20


def test_memory_of_a_process_that_was_started_counts_after_its_end() -> None:
    assert Path("/proc").is_dir(), "this test needs Linux"
    code = f"import time; held = b'x' * {MANY}; time.sleep(1.5)"
    with Usage() as usage:
        before = usage.so_far().peak_bytes
        subprocess.run([sys.executable, "-c", code], check=True)
        after = usage.so_far().peak_bytes
    assert MANY < after - before < MANY + (100 << 20)


def test_seconds_count_from_entering_the_context() -> None:
    with Usage() as usage:
        time.sleep(0.2)
        used = usage.so_far()
    assert 0.2 <= used.seconds < 5
    assert 0 <= used.cpu_seconds < 0.2


def test_disk_is_that_of_all_files_and_of_no_link(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"1" * 1000)
    (tmp_path / "a" / "b" / "two").write_bytes(b"2" * 500)
    linked = tmp_path / "large"
    linked.write_bytes(b"3" * 100_000)
    (tmp_path / "a" / "link").symlink_to(linked)
    assert 1500 <= disk_bytes([tmp_path / "a", tmp_path / "none"]) < 3000
