"""Stage one by one vLLM, killed again and again: nothing may be lost or wrong.

In: a configuration whose rationales and attention are both vLLM's. The command `molsaki rationales CONFIG
--with-attention` is killed by SIGKILL after a random time, `--kills` times, each time into the same store, and then run
to its end; what is stored is compared with the store of a run that nothing happened to. vLLM's own processes have to be
gone after each kill.

    python -m benchmarks.stage_one_kills run.yaml --kills 20
"""

import os
import random
import shutil
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
        left, finished = 0, 0
        for number in range(kills):
            environment = {**os.environ, "MOLSAKI_KILLS": f"{os.getpid()}-{number}"}
            after = moments.uniform(0.3, 1.0) * seconds
            run = subprocess.Popen(command(config, folder / "killed", folder / "runs"), env=environment)  # noqa: S603
            try:
                finished += run.wait(after) == 0
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                run.wait()
            deadline = time.monotonic() + WAIT_SECONDS
            while (still := own_processes(environment["MOLSAKI_KILLS"])) and time.monotonic() < deadline:
                time.sleep(0.2)
            left += len(still)
            click.echo(f"kill {number + 1} after {after:.0f} s: {len(still)} processes left")
        subprocess.run(command(config, folder / "killed", folder / "runs"), check=True)  # noqa: S603
        said = compared(folder / "undisturbed", folder / "killed")
        shutil.rmtree(folder / "runs", ignore_errors=True)
    click.echo(f"{kills} kills, {finished} of them too late; {left} processes left; {said or 'nothing lost or wrong'}")
    sys.exit(bool(said or left))


if __name__ == "__main__":
    main()
