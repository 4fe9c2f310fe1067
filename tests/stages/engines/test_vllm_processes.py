"""How the processes of an engine are started; that vLLM's are, tests/stages/engines/test_contract.py asks."""

import multiprocessing
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from stages.engines.vllm_processes import CHOOSING, WHILE_LOADING, starting_soon

UNGUARDED = """
import gc, multiprocessing
from stages.engines.vllm_processes import starting_soon

print("main", *gc.get_threshold(), flush=True)
CHILD = '''
import gc
print("child", *gc.get_threshold(), flush=True)
gc.collect()
gc.freeze()
gc.collect()
print("frozen", *gc.get_threshold(), len(gc.callbacks), flush=True)
'''
with starting_soon(on_cpu=False):
    process = multiprocessing.get_context("spawn").Process(target=exec, args=(CHILD,))
    process.start()
process.join()
"""


def test_a_spawned_process_searches_rarely_until_all_is_frozen_and_leaves_our_main_module_alone(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    done = subprocess.run([sys.executable, script], cwd=Path(__file__).parents[3], capture_output=True, text=True)
    said = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in said] == ["main", "child", "frozen"], done.stderr
    main, child, frozen = (tuple(map(int, line[1:4])) for line in said)
    assert child == WHILE_LOADING and frozen == main != child and said[2][4] == "0"


@pytest.mark.parametrize(("on_cpu", "method"), [(True, "fork"), (False, "spawn")])
def test_vllm_forks_its_first_process_on_a_cpu_and_chooses_elsewhere(
    monkeypatch: pytest.MonkeyPatch, on_cpu: bool, method: str
) -> None:
    choosing = ModuleType("vllm.v1.engine.utils")
    setattr(choosing, CHOOSING, usual := lambda: multiprocessing.get_context("spawn"))
    for name in ("vllm", "vllm.v1", "vllm.v1.engine"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, choosing.__name__, choosing)
    main = sys.modules["__main__"]
    with pytest.raises(RuntimeError, match="does not start"), starting_soon(on_cpu=on_cpu):
        assert getattr(choosing, CHOOSING)().get_start_method() == method
        assert sys.modules["__main__"] is not main
        raise RuntimeError("does not start")
    assert getattr(choosing, CHOOSING) is usual and sys.modules["__main__"] is main
