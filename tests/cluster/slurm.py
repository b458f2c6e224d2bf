"""A real Slurm of two nodes on this machine, in a folder of its own, without systemd or cgroups.

    python -m tests.cluster.slurm [COMMAND ...]

starts one, runs the command in it (a shell by default) and takes it down. Both nodes are this machine under two names
and ports. Everything runs as the current user with a munge key of its own: a Slurm that is running here already is
neither used nor changed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "sinfo", "scancel")
NODES = ("n1", "n2")


def missing_programs() -> list[str]:
    """Programs of Slurm and munge that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]


class LocalSlurm:
    """A running Slurm.

    Args:
        folder: its configuration, state and logs.
        environment: what a command needs in order to use it.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)

    def run(self, *command: str, timeout: float = 120, **options: object) -> subprocess.CompletedProcess[str]:
        """Run a command that uses it."""
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False, **options
        )

    def job_field(self, job: str, field: str) -> str | None:
        """A field of ``scontrol show job``; None for a job that Slurm does not know."""
        for part in self.run("scontrol", "show", "job", job).stdout.split():
            name, _, value = part.partition("=")
            if name == field:
                return value
        return None

    def logs(self) -> str:
        """The ends of all logs, for messages."""
        return "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))


@contextmanager
def local_slurm(folder: Path) -> Iterator[LocalSlurm]:
    """Start Slurm in an empty folder, and stop every part of it on exit.

    Raises:
        TimeoutError: a part did not come up.
    """
    ports = free_ports(1 + len(NODES))
    config = folder / "slurm.conf"
    config.write_text(configuration(folder, ports))
    key, munge_socket = folder / "munge.key", folder / "munge.socket"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    cluster_variables = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environment = {**cluster_variables, "SLURM_CONF": str(config), "MASTER_ADDR": "127.0.0.1", "PATH": SEARCH_PATH}
    slurm = LocalSlurm(folder, environment)
    munged = [
        "munged", "--foreground", "--force", "--num-threads=1", f"--key-file={key}", f"--socket={munge_socket}",
        f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
    ]  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(_daemon(slurm, "munged", munged))
        wait_until(munge_socket.exists, "munged", slurm)
        stack.enter_context(_daemon(slurm, "slurmctld", ["slurmctld", "-D", "-f", str(config)]))
        for node in NODES:
            stack.enter_context(_daemon(slurm, f"slurmd-{node}", ["slurmd", "-D", "-f", str(config), "-N", node]))
        wait_until(lambda: slurm.run("sinfo", "-h", "-o", "%t %D").stdout.strip() == "idle 2", "the nodes", slurm)
        try:
            yield slurm
        finally:
            slurm.run("scancel", "--user", str(os.getuid()))
            wait_until(lambda: not slurm.run("squeue", "-h").stdout.strip(), "the end of the jobs", slurm)


def configuration(folder: Path, ports: list[int]) -> str:
    """``slurm.conf`` of one controller and the nodes on this machine."""
    host, user = socket.gethostname().partition(".")[0], os.getuid()
    cores = os.cpu_count() or 1
    lines = [
        "ClusterName=local",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={ports[0]}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder}/munge.socket",
        "CredType=cred/munge",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd-%n.pid",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        "SlurmdParameters=config_overrides",
        "SchedulerParameters=sched_min_interval=100000",
        "ReturnToService=2",
        "MpiDefault=none",
        "KillWait=5",
        *(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={max(2, cores)} State=UNKNOWN"
            for name, port in zip(NODES, ports[1:], strict=True)
        ),
        "PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
    ]
    return "\n".join(lines) + "\n"


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until(condition: Callable[[], bool], what: str, slurm: LocalSlurm, seconds: float = 60) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: with the logs of Slurm.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s\n{slurm.logs()}")
        time.sleep(0.2)


@contextmanager
def _daemon(slurm: LocalSlurm, name: str, command: list[str]) -> Iterator[None]:
    program = shutil.which(command[0], path=SEARCH_PATH)
    assert program is not None
    with (slurm.folder / f"{name}.log").open("a") as log:
        process = subprocess.Popen(
            [program, *command[1:]], env=slurm.environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()


def main() -> None:
    """Run a command in a Slurm of its own."""
    missing = missing_programs()
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge)")
    command = sys.argv[1:] or [os.environ.get("SHELL", "/bin/sh")]
    with tempfile.TemporaryDirectory() as folder, local_slurm(Path(folder)) as slurm:
        raise SystemExit(subprocess.run(command, env=slurm.environment, check=False).returncode)


if __name__ == "__main__":
    main()
