"""Whether two nodes train and predict as two processes on one machine, to the last bit.

    sudo python benchmarks/two_nodes.py [--by torchrun srun] [--steps 12] [--json FILE]

The two nodes are network namespaces of this machine, joined by a pair of virtual Ethernet devices. Each has an address,
a host name and an /etc/hosts of its own, and cannot reach the ports of the other's loopback device: what binds to or
looks for 127.0.0.1 fails, as between machines. They share the disk, as the nodes of a cluster do. This needs Linux,
root, and the commands `ip` (iproute2) and `unshare` (util-linux).

- torchrun: one agent a node, `--nnodes 2 --rdzv-backend c10d --rdzv-endpoint NODE:PORT`.
- srun: a Slurm of our own, with munged, slurmctld and a slurmd in each node (Debian: apt install slurm-wlm munge);
  nothing of the system's configuration is read or changed.

Each trains a recipe on scikit-learn's digits and predicts 1,797 images; the weights and the table of predictions are
compared with those of `tapetum train ... runtime.devices=2` and of `tapetum predict` in one process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from side_by_side import machine, write_json

NODES = {"tapetum0": "10.98.76.1", "tapetum1": "10.98.76.2"}
FIRST = next(iter(NODES))
PORT = 29_400
TAPETUM = (sys.executable, "-m", "tapetum")
LAUNCHERS = {"torchrun": "ip", "srun": "slurmctld"}
"""Name -> a command that it needs, which may be missing."""
PATIENCE = 600.0


def missing(by: str) -> str | None:
    """Return why this machine cannot try it; None if it can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "making network namespaces needs root"
    lacking = [name for name in ("ip", "unshare", LAUNCHERS[by]) if shutil.which(name) is None]
    return f"{', '.join(lacking)} is not installed" if lacking else None


@contextmanager
def nodes() -> Iterator[None]:
    """Two network namespaces, joined, with host names that resolve.

    Raises:
        subprocess.CalledProcessError: the system does not allow it; the message of `ip` has been printed.
    """
    with ExitStack() as stack:
        for name in NODES:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)  # and its device with it
        _ip("link", "add", "tapetum-v0", "type", "veth", "peer", "name", "tapetum-v1")
        for i, (name, address) in enumerate(NODES.items()):
            _ip("link", "set", f"tapetum-v{i}", "netns", name)
            _ip("-n", name, "address", "add", f"{address}/24", "dev", f"tapetum-v{i}")
            for device in (f"tapetum-v{i}", "lo"):
                _ip("-n", name, "link", "set", device, "up")
        yield


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def start(node: str, words: Sequence[str], **variables: str) -> subprocess.Popen[str]:
    """Start a command on a node."""
    hosts = "".join(f"{address} {name}\n" for name, address in NODES.items())
    # Not `ip netns exec`: that mounts a new /sys, without the control groups that slurmd looks for.
    own = 'printf "$1" | cat > /dev/shm/"$0".hosts && mount --bind /dev/shm/"$0".hosts /etc/hosts && '
    own += 'hostname "$0" && shift && exec "$@"'
    named = ["unshare", "--uts", "--mount", "sh", "-c", own, node, f"127.0.0.1 localhost\n{hosts}", *words]
    environment = _environment() | variables
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(["nsenter", f"--net=/run/netns/{node}", *named], env=environment, **pipes)


def _environment() -> dict[str, str]:
    own = ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in own and not name.startswith("SLURM")}
    return kept | {"OMP_NUM_THREADS": "1"}


def finish(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Wait for all.

    Raises:
        RuntimeError: one failed; says what it printed.
    """
    said = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("\n".join(said))


def by_torchrun(words: Sequence[str]) -> None:
    """Run one command of ours by an agent on each node."""
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{FIRST}:{PORT}", "--rdzv-id", "tapetum"]
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *rendezvous]
    finish([start(node, [*agent, "-m", "tapetum", *words]) for node in NODES])


def by_srun(words: Sequence[str], configuration: Path) -> None:
    """Run one command of ours as two tasks on two nodes."""
    tasks = ["srun", "--nodes", "2", "--ntasks", "2", "--kill-on-bad-exit", *TAPETUM, *words]
    finish([start(FIRST, tasks, SLURM_CONF=str(configuration))])


@contextmanager
def slurm(folder: Path) -> Iterator[Path]:
    """Run Slurm's daemons on the nodes; yields its configuration."""
    key, socket = folder / "munge.key", folder / "munge.socket"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    configuration.write_text(_slurm_conf(folder, socket))
    for name in ("state", *NODES):
        (folder / name).mkdir()
    files = {"key-file": key, "socket": socket, "pid-file": folder / "munged.pid", "log-file": folder / "munged.log"}
    files["seed-file"] = folder / "munged.seed"
    munge = ["munged", "--force", "--foreground", *(f"--{name}={path}" for name, path in files.items())]
    variables = {"SLURM_CONF": str(configuration)}
    daemons = [subprocess.Popen(munge, stderr=subprocess.DEVNULL)]
    try:
        _until(socket.exists, "munged")
        daemons.append(start(FIRST, ["slurmctld", "-D"], **variables))
        daemons += [start(node, ["slurmd", "-D"], **variables) for node in NODES]
        _until(lambda: _idle(variables) == len(NODES), f"the nodes of Slurm ({folder})")
        yield configuration
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.communicate()


def _slurm_conf(folder: Path, socket: Path) -> str:
    hosts = "\n".join(f"NodeName={name} NodeAddr={address} CPUs={os.cpu_count()}" for name, address in NODES.items())
    return f"""ClusterName=tapetum
SlurmctldHost={FIRST}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={socket}
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
MpiDefault=none
ReturnToService=2
{hosts}
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def _idle(variables: dict[str, str]) -> int:
    asked = start(FIRST, ["sinfo", "--noheader", "--Node", "--format=%T"], **variables)
    return asked.communicate(timeout=PATIENCE)[0].split().count("idle")


def _until(is_true: Any, what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not start in {seconds:g} s")
        time.sleep(0.5)


def train(run: Path, steps: int) -> list[str]:
    """The command that trains."""
    changes = [f"trainer.steps={steps}", "runtime.accelerator=cpu", "runtime.threads=1"]
    return ["train", "paws_digits", "--output", str(run), *changes]


def predict(run: Path, table: Path) -> list[str]:
    """The command that predicts."""
    return ["predict", str(run), "digits", "--output", str(table)]


def weights(run: Path) -> dict[str, bytes]:
    """The arrays of the last checkpoint."""
    from safetensors.numpy import load_file

    last = max((run / "checkpoints").glob("*.safetensors"))
    return {name: array.tobytes() for name, array in load_file(last).items()}


def compare(by: Sequence[str], steps: int, folder: Path) -> dict[str, Any]:
    """Train and predict on one machine and on two nodes, and compare."""
    alone = {"run": folder / "alone", "table": folder / "alone.csv"}
    for words in ([*train(alone["run"], steps), "runtime.devices=2"], predict(alone["run"], alone["table"])):
        subprocess.run([*TAPETUM, *words], env=_environment(), check=True, capture_output=True)
    found: dict[str, Any] = {}
    with nodes(), ExitStack() as stack:
        for name in by:
            own = folder / name
            own.mkdir()
            configuration = stack.enter_context(slurm(own)) if name == "srun" else None
            for words in (train(own / "run", steps), predict(own / "run", own / "table.csv")):
                by_torchrun(words) if configuration is None else by_srun(words, configuration)
            found[name] = {
                "same_weights": weights(own / "run") == weights(alone["run"]),
                "same_predictions": (own / "table.csv").read_bytes() == alone["table"].read_bytes(),
                "version": _version(name),
            }
            print(f"{name}: {found[name]}", flush=True)
    return found


def _version(by: str) -> str:
    if by == "torchrun":
        import torch

        return f"torch {torch.__version__}"
    return subprocess.run(["slurmctld", "-V"], check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by", nargs="+", choices=LAUNCHERS, default=list(LAUNCHERS), help="what starts the processes")
    parser.add_argument("--steps", type=int, default=12, help="of the training")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    options = parser.parse_args()
    for name in options.by:
        if reason := missing(name):
            parser.exit(2, f"two_nodes: error: {name}: {reason}.\n")
    with tempfile.TemporaryDirectory() as folder:
        found = compare(options.by, options.steps, Path(folder))
    write_json(options.json, {"section": "two_nodes", "steps": options.steps, "by": found, "machine": machine()})


if __name__ == "__main__":
    main()
