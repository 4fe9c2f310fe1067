"""The rationale stage killed in the middle of a stream: what is committed stays, and is not asked for again."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from cache.rationales import RationaleStore
from cache.spaces import Space
from tests.fakes import ScriptedEngine
from tests.stages.rationales.test_write import NUMBERED, SETTINGS, half_right, new_store, write

PIECE = SETTINGS.piece
SLOW_RUN = """
import sys, time
from pathlib import Path
from tests.fakes import ScriptedEngine
from tests.stages.rationales.test_write import NUMBERED, half_right, new_store, write

def answer(prompt):
    time.sleep(0.1)
    print("answered", flush=True)
    return half_right(prompt)

write(NUMBERED, new_store(Path(sys.argv[1])), ScriptedEngine(answer))
"""


def test_a_killed_stage_repeats_one_piece_at_most_and_loses_nothing_committed(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    command = [sys.executable, "-c", SLOW_RUN, str(tmp_path / "store")]
    running = subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(store.space.commits()) < 2:
        assert time.monotonic() < deadline and running.poll() is None, "nothing was committed"
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    answered = running.communicate()[0].count("answered")
    committed = RationaleStore(Space.open(store.space.path)).attempts()
    assert len(committed) % PIECE == 0 and 0 <= answered - len(committed) <= PIECE
    second = ScriptedEngine(half_right)
    summary = write(NUMBERED, store, second)
    assert (summary.found, len(second.prompts)) == (len(committed), 21 - len(committed))
    assert committed.items() <= store.attempts().items()
    undisturbed = new_store(tmp_path / "undisturbed")
    write(NUMBERED, undisturbed, ScriptedEngine(half_right))
    assert store.attempts() == undisturbed.attempts()
