"""SLURM itself on one machine: its three daemons on 127.0.0.1, started for a folder of tests and ended with it.

Debian's slurm-wlm and munge, as root, without systemd, cgroups and accounting: `make slurm-test` installs them. A job
that was requeued waits until its credentials have expired, which is made 10 s here instead of 120.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
CONFIGURATION = """\
ClusterName=one
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
SlurmctldPort={controller}
SlurmdPort={node}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=30
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")


def missing() -> str | None:
    """What this machine lacks for a cluster of its own, or None."""
    if os.geteuid() != 0:
        return "needs root: `make slurm-test`"
    lacking = [name for name in (*DAEMONS, *COMMANDS) if shutil.which(name) is None]
    return f"{', '.join(lacking)} are not installed: `make slurm-test`" if lacking else None


class Slurm:
    """A cluster of one node with two cores, whose files lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> Self:
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(folder=self.folder, controller=_free_port(), node=_free_port())
        )
        own = [
            f"--{name}={self.folder}/munged.{name.partition('-')[0]}" for name in ("pid-file", "log-file", "seed-file")
        ]
        self.command("munged", f"--key-file={key}", f"--socket={self.folder}/munge.socket", "--force", *own)
        self.command("slurmctld", "-c")
        self.command("slurmd", "-N", "localhost")
        until("the node is idle", lambda: "idle" in self.command("sinfo", "--noheader"), 60)
        return self

    def __exit__(self, *_: object) -> None:
        self.command("scancel", "--user=root", "--signal=KILL", "--full")
        self.command("scancel", "--user=root")
        for name in reversed(DAEMONS):
            pid = self.folder / f"{name}.pid"
            if pid.exists():
                os.kill(int(pid.read_text()), signal.SIGTERM)

    def command(self, *words: str, folder: Path | None = None) -> str:
        """What a command of SLURM prints; it has to end well."""
        done = subprocess.run(words, env=self.environment, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def submit(self, folder: Path, script: str, *arguments: str, options: Sequence[str] = ()) -> str:
        """Queue a script that lies in `folder`; returns the number of the job."""
        return self.command("sbatch", "--parsable", *options, script, *arguments, folder=folder).strip()

    def job(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says of a job, of an array's the first task that it names."""
        words = self.command("scontrol", "--oneliner", "show", "job", job).splitlines()[0].split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def states(self, job: str) -> list[str]:
        """The states of a job, or of all tasks of an array."""
        lines = self.command("scontrol", "--oneliner", "show", "job", job).splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word)["JobState"] for line in lines if line]

    def finish(self, job: str, seconds: float = 300) -> int:
        """Wait until a job has ended well, however often it is requeued meanwhile, which is returned."""
        until(f"job {job} has ended", lambda: self.job(job)["JobState"] in ENDED, seconds)
        found = self.job(job)
        assert (found["JobState"], found["ExitCode"]) == ("COMPLETED", "0:0"), found
        return int(found["Restarts"])


def until(what: str, is_so: Callable[[], bool], seconds: float) -> None:
    """Wait for something, at most so long."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"it did not come to that in {seconds:g} s: {what}"
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
