"""What processes of vLLM print is kept from the terminal, and known afterwards; no vLLM is needed for that."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from stages.engines.vllm_output import VllmOutput, vllm_errors_to_log

PARENT = """
import subprocess, sys
from stages.engines.vllm_output import VllmOutput

chatter = '''
import os, time
print("child out", flush=True)
os.write(2, b"(Engine pid=1) ERROR ValueError: no room\\\\n")
time.sleep(1)
os.write(2, b"RuntimeError: See root cause above.\\\\n")
'''
output = VllmOutput()
print("before")
with output.captured():
    child = subprocess.Popen([sys.executable, "-c", chatter])
    print("meanwhile")
    print("a bar", file=sys.stderr)
print("after")
child.wait()
print(repr(output.cause()), "child out" in output.said())
"""


def said(level: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "VLLM_LOGGING_LEVEL": level}
    command = [sys.executable, "-P", "-c", PARENT]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_what_children_print_is_kept_and_what_this_process_prints_is_shown() -> None:
    found = said("ERROR")
    assert found.stdout.splitlines() == ["before", "meanwhile", "after", "'ValueError: no room' True"]
    assert found.stderr == "a bar\n"


def test_whoever_asks_vllm_to_talk_hears_it() -> None:
    found = said("DEBUG")
    assert "child out" in found.stdout and "ValueError: no room" in found.stderr
    assert found.stdout.splitlines()[-1] == "None False"


def test_what_was_written_goes_to_the_log_once_and_nothing_where_there_is_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    output, log = VllmOutput(), logging.getLogger("test")
    output.log(log)
    assert not caplog.records
    with output.captured():
        subprocess.run([sys.executable, "-c", "print('x' * 100_000, 'the end')"], check=True)
    output.log(log)
    (record,) = caplog.records
    assert record.getMessage().endswith("the end") and len(record.getMessage()) < 70_000, "the last 64 KiB"


def test_errors_of_vllm_in_this_process_go_where_all_messages_go(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("vllm")
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler()])
    monkeypatch.setattr(logger, "propagate", False)
    vllm_errors_to_log()
    logging.getLogger("vllm.engine").error("the engine is dead")
    assert "the engine is dead" in caplog.text and capfd.readouterr().err == ""
