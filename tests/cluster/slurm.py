"""A Slurm of one node on this machine: Debian's packages, started by hand, without systemd."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
STARTS_S = 60.0

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
EnforcePartLimits=ALL
MinJobAge=86400
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory_mb} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
# The plugin starts a job's step without variables of Slurm: the step would look for /etc/slurm.
WRAPPER = """\
#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {srun} "$@"
"""


class AbsentError(Exception):
    """Why there can be no Slurm here, in one line."""


class StartError(Exception):
    """What a daemon said that did not start, in one line."""


@dataclass
class Slurm:
    folder: Path
    host: str
    environment: dict[str, str]
    processes: list[subprocess.Popen] = field(default_factory=list)

    def ask(self, *command: str) -> str:
        """What a command of Slurm's prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    def completed(self) -> list[dict[str, str]]:
        """The jobs that have ended, from the controller's own list: JobId, JobState and others."""
        path = self.folder / "completed"
        lines = path.read_text().splitlines() if path.exists() else []
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]

    def queue(self) -> dict[str, str]:
        """The state of every job by its number, as squeue shows it, those that have ended too."""
        shown = self.ask("squeue", "--states=all", "--noheader", "--format=%i %T")
        return dict(line.split() for line in shown.splitlines())


def install() -> None:
    """Installs Debian's packages where they are not there; raises AbsentError where it cannot."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise AbsentError("Slurm's daemons are started as root on Linux")
    if _missing():
        if shutil.which("apt-get") is None:
            raise AbsentError("no apt-get, and no Slurm")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        get = ["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
        add = [*get, "install", "-y", "--no-install-recommends", *PACKAGES]
        for command in (add, [*get, "update"], add):
            # Without a running init the packages may fail to start what is not to be started.
            with suppress(subprocess.TimeoutExpired), _starting_nothing():
                subprocess.run(command, env=environment, capture_output=True, timeout=180)
            if not _missing():
                break
    if missing := _missing():
        raise AbsentError(f"Debian's packages cannot be installed: no {', '.join(missing)}")


@contextmanager
def _starting_nothing() -> Iterator[None]:
    """Debian's packages start no daemon of their own until the end of the block."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():  # the machine's own
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def _missing() -> list[str]:
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    return [name for name in COMMANDS if shutil.which(name, path=places) is None]


@contextmanager
def running(cores: int = 2) -> Iterator[Slurm]:
    """A Slurm that takes jobs; whatever happens, it is stopped, with all that its jobs started."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # sockets need short paths
    folder.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    for name, mode in (("munge", 0o755), ("key", 0o700), ("state", 0o700), ("spool", 0o755)):
        (folder / name).mkdir(mode=mode)
    (folder / "bin").mkdir()
    ports = _free_ports(2)
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=host,
            folder=folder,
            controller=ports[0],
            daemon=ports[1],
            cores=min(cores, os.cpu_count() or 1),
            memory_mb=psutil.virtual_memory().total // 2**20,
        )
    )
    wrapper = folder / "bin/srun"
    wrapper.write_text(WRAPPER.format(folder=folder, srun=shutil.which("srun")))
    wrapper.chmod(0o755)
    key = folder / "key/munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"], "/usr/sbin"])
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
    slurm = Slurm(folder, host, environment)
    try:
        _start(slurm, "munged", *_munge(folder), "--foreground")
        _wait(slurm, lambda: (folder / "munge/socket").exists(), "munged")
        _start(slurm, "slurmctld", "-D")
        _start(slurm, "slurmd", "-D", "-N", host)
        _wait(slurm, lambda: slurm.ask("sinfo", "-h", "-o", "%T").strip() == "idle", "slurmd")
        yield slurm
    finally:
        _stop(slurm)
        shutil.rmtree(folder, ignore_errors=True)


def _munge(folder: Path) -> list[str]:
    own = {"key-file": "key/munge.key", "socket": "munge/socket"}
    own |= {"pid-file": "munge/pid", "log-file": "munge/log", "seed-file": "munge/seed"}
    return [f"--{name}={folder / place}" for name, place in own.items()]


def _free_ports(count: int) -> list[int]:
    with suppress(OSError):
        found = [socket.socket() for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in found]
        for each in found:
            each.close()
        return ports
    raise AbsentError("no free ports on 127.0.0.1")


def _start(slurm: Slurm, name: str, *arguments: str) -> None:
    program = shutil.which(name, path=slurm.environment["PATH"])
    assert program, name
    with (slurm.folder / f"{name}.out").open("wb") as out:
        process = subprocess.Popen(
            [program, *arguments],
            env=slurm.environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=slurm.folder,
            start_new_session=True,
        )
    slurm.processes.append(process)


def _wait(slurm: Slurm, ready, name: str) -> None:
    deadline = time.monotonic() + STARTS_S
    while time.monotonic() < deadline:
        with suppress(subprocess.SubprocessError):
            if ready():
                return
        if any(process.poll() is not None for process in slurm.processes):
            break
        time.sleep(0.2)
    said = [path.read_text()[-500:] for path in sorted(slurm.folder.glob("*.out"))]
    raise StartError(
        f"{name} does not start: {' '.join(' '.join(said).split()) or 'no reason told'}"
    )


def _stop(slurm: Slurm) -> None:
    for process in reversed(slurm.processes):
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    # Jobs outlive their daemon; nobody looks after them any more.
    for process in left_by(slurm):
        with suppress(psutil.Error):
            process.kill()


def left_by(slurm: Slurm) -> list[psutil.Process]:
    """What runs of a Slurm's jobs: daemons that look after steps, and what the steps started."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name() == "slurmstepd":
                own = Path(process.cwd().removesuffix(" (deleted)")) == slurm.folder
            else:
                told = process.environ()
                own = "SLURM_JOB_ID" in told and f"{slurm.folder}/bin" in told.get("PATH", "")
            if own:
                found.append(process)
    return found
