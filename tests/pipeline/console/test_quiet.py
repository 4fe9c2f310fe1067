"""What libraries print does not get between us and whoever reads stdout."""

import subprocess
import sys

CODE = """
import os, subprocess
from pipeline.console.progress import stdout_to_stderr
with stdout_to_stderr():
    print("printed")
    subprocess.run(["echo", "by a process"], check=True)
    os.write(1, b"written")
print("ours")
"""


def test_stdout_is_ours_alone_while_a_stage_works() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == "ours\n"
    assert all(text in done.stderr for text in ("printed", "by a process", "written"))
