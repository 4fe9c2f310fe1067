"""Stage one by one vLLM, killed again and again: nothing may be lost or wrong.

In: a configuration whose rationales and attention are both vLLM's. The command `molsaki rationales CONFIG
--with-attention` is killed by SIGKILL after a random time, again and again into the same store, until a run ends before
it is killed; what is stored then is compared with the store of a run that nothing happened to, and the next store is
begun, until there were `--kills` kills. vLLM's own processes have to be gone after each.

    python -m benchmarks.stage_one_kills run.yaml --kills 20
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import psutil

from cache import open_attention
from cache.rationales import RationaleStore
from cache.spaces import Space

WAIT_SECONDS = 30


def command(config: Path, store: Path, runs: Path) -> list[str]:
    """Stage one into a store of its own."""
    options = ["--set", f"store={store}", "--runs", str(runs), "--with-attention", "--quiet"]
    return [sys.executable, "-P", "-m", "pipeline", "rationales", str(config), *options]


def own_processes(mark: str) -> list[psutil.Process]:
    """Processes that have `mark` in their environment: the command's, and vLLM's below it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MOLSAKI_KILLS") == mark:
                found.append(process)
        except psutil.Error:  # gone, or somebody else's
            continue
    return found


def compared(undisturbed: Path, killed: Path) -> str:
    """What differs between two stores; empty where nothing does."""
    (one,), (other,) = ([*(store / "rationales").iterdir()] for store in (undisturbed, killed))
    attempts, others = (RationaleStore(Space.open(path)).attempts() for path in (one, other))
    texts = {name: attempt.output for name, attempt in attempts.items()}
    if texts != {name: attempt.output for name, attempt in others.items()}:
        return "rationales differ"
    (one,), (other,) = ([*(store / "attention").iterdir()] for store in (undisturbed, killed))
    ours, theirs = open_attention(one), open_attention(other)
    if set(ours) != set(theirs):
        return f"{len(set(ours) ^ set(theirs))} records are in one store only"
    apart = max(float(np.abs(ours[key].astype(np.float32) - theirs[key].astype(np.float32)).max()) for key in ours)
    return f"attention differs by {apart:.1e}" if apart > 2e-3 else ""


@click.command()
@click.argument("config", type=click.Path(exists=True, path_type=Path))
@click.option("--kills", default=20, show_default=True, help="How often.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
def main(config: Path, kills: int, seed: int) -> None:
    """Kill stage one of CONFIG."""
    moments = random.Random(seed)
    with TemporaryDirectory(prefix="molsaki-kills-") as scratch:
        folder = Path(scratch)
        began = time.monotonic()
        subprocess.run(command(config, folder / "undisturbed", folder / "runs"), check=True)  # noqa: S603
        seconds = time.monotonic() - began
        click.echo(f"undisturbed: {seconds:.0f} s")
        killed, left, stores, wrong = 0, 0, 0, ""
        while killed < kills and not wrong:
            stores += 1
            store = folder / f"killed-{stores}"
            while killed < kills:
                mark = f"{os.getpid()}-{killed}"
                after = moments.uniform(0.3, 1.0) * seconds
                if not kill(command(config, store, folder / "runs"), mark, after):
                    break
                killed += 1
                still = remaining(mark)
                left += len(still)
                click.echo(f"kill {killed} after {after:.0f} s, store {stores}: {len(still)} processes left")
            subprocess.run(command(config, store, folder / "runs"), check=True)  # noqa: S603
            wrong = compared(folder / "undisturbed", store)
    click.echo(f"{killed} kills, {stores} stores; {left} processes left; {wrong or 'nothing lost or wrong'}")
    sys.exit(bool(wrong or left))


def kill(words: list[str], mark: str, after: float) -> bool:
    """Run a command and kill it after so many seconds; whether it ran until then. It has to end well if not."""
    run = subprocess.Popen(words, env={**os.environ, "MOLSAKI_KILLS": mark})  # noqa: S603
    try:
        if run.wait(after) != 0:
            sys.exit(f"{' '.join(words)}: ended with {run.returncode} before it was killed")
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGKILL)
        run.wait()
        return True
    return False


def remaining(mark: str) -> list[psutil.Process]:
    """What is still there of a killed command after a while."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (still := own_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return still


if __name__ == "__main__":
    main()
