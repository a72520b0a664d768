"""Two hosts on one machine: namespaces of network, processes, mounts and host name, each with an sshd of its own.

Both see the machine's files, as hosts with a shared folder would; what must differ is mounted over: the home folder
of root (through /etc/passwd), /etc/hosts and Ray's /tmp/ray.
"""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import BUSY_MACHINE

PROGRAMS = ("ip", "unshare", "mount", "hostname", "sshd", "ssh", "ssh-keygen", "rsync")
UNSHARE = ("unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--mount-proc")
START_TIMEOUT_S = 30

HOST_SCRIPT = """
set -e
read -r go  # the network is there
hostname {name}
mount --bind {folder}/passwd /etc/passwd
mount --bind {folder}/hosts /etc/hosts
mkdir -p /tmp/ray /run/sshd
mount --bind {folder}/ray /tmp/ray
ip link set lo up
ip link set {link} name eth0
ip addr add {address}/24 dev eth0
ip link set eth0 up
ip route add default via {gateway}  # without one Ray takes 127.0.0.1 for its own address
exec {sshd} -D -e -f {folder}/sshd_config
"""


@dataclass(frozen=True)
class Host:
    """A host: its address, and the folder with its `home`, its `ray` (which it has as /tmp/ray) and its log."""

    name: str
    address: str
    folder: Path


@dataclass(frozen=True)
class TwoHosts:
    """Two hosts that root may enter by SSH with `key_file`."""

    hosts: tuple[Host, Host]
    key_file: Path


def why_not() -> str | None:
    """Why two hosts cannot be had here, None where they can."""
    if os.geteuid() != 0:
        return "needs root, for namespaces"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    command = [*UNSHARE, "ip", "link", "set", "lo", "up"]
    probe = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"needs namespaces: {probe.stderr.strip()}" if probe.returncode else None


@contextmanager
def two_hosts(root: Path) -> Iterator[TwoHosts]:
    """Two hosts, up and answering SSH, on a network of their own that this process can reach; gone afterwards."""
    key_file = root / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key_file)], check=True)
    network = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
    hosts = tuple(Host(f"brats-{n}", f"{network}.{n + 1}", root / f"host{n}") for n in (1, 2))
    with ExitStack() as stack:
        bridge = stack.enter_context(_bridge(f"{network}.1"))
        for host in hosts:
            _furnish(host, hosts, key_file)
            stack.enter_context(_running(host, bridge, f"{network}.1"))
        for host in hosts:
            _await_ssh(host, key_file)
        yield TwoHosts((hosts[0], hosts[1]), key_file)


@contextmanager
def _bridge(address: str) -> Iterator[str]:
    name = f"brats{secrets.token_hex(4)}"
    _ip("link", "add", name, "type", "bridge")
    try:
        _ip("addr", "add", f"{address}/24", "dev", name)
        _ip("link", "set", name, "up")
        yield name
    finally:
        _ip("link", "del", name)


def _furnish(host: Host, hosts: tuple[Host, ...], key_file: Path) -> None:
    """Write what one host has for itself."""
    (host.folder / "home").mkdir(parents=True)
    (host.folder / "ray").mkdir()
    users = Path("/etc/passwd").read_text().splitlines()
    users = [
        ":".join([*line.split(":")[:5], str(host.folder / "home"), "/bin/bash"])
        if line.startswith("root:")
        else line
        for line in users
    ]
    (host.folder / "passwd").write_text("\n".join(users) + "\n")
    names = ["127.0.0.1 localhost", *(f"{each.address} {each.name}" for each in hosts)]
    (host.folder / "hosts").write_text("\n".join(names) + "\n")
    host_key = host.folder / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True)
    (host.folder / "sshd_config").write_text(
        f"HostKey {host_key}\nAuthorizedKeysFile {key_file}.pub\nPermitRootLogin yes\nStrictModes no\nUsePAM no\n"
        "PidFile none\nMaxStartups 100\nMaxSessions 100\nPrintMotd no\n"
        f"SetEnv {' '.join(f'{name}={value}' for name, value in BUSY_MACHINE.items())}\n"
    )


@contextmanager
def _running(host: Host, bridge: str, gateway: str) -> Iterator[None]:
    """The host's namespaces and its sshd; all its processes end with them."""
    link, peer = f"b{secrets.token_hex(5)}", f"b{secrets.token_hex(5)}"
    script = HOST_SCRIPT.format(
        name=host.name,
        folder=host.folder,
        link=peer,
        address=host.address,
        gateway=gateway,
        sshd=shutil.which("sshd"),
    )
    with (host.folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(
            [*UNSHARE, "--kill-child", "bash", "-c", script],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    try:
        assert process.stdin is not None
        _await_own_network(process.pid)
        _ip("link", "add", link, "type", "veth", "peer", "name", peer, "netns", str(process.pid))
        _ip("link", "set", link, "master", bridge, "up")
        process.stdin.write(b"go\n")
        process.stdin.close()
        yield
    finally:
        process.kill()  # and the kernel kills every process of its process namespace
        process.wait()


def _await_own_network(pid: int) -> None:
    own = os.readlink("/proc/self/ns/net")
    deadline = time.monotonic() + START_TIMEOUT_S
    while os.readlink(f"/proc/{pid}/ns/net") == own:
        assert time.monotonic() < deadline, "unshare made no network namespace"
        time.sleep(0.02)


def _await_ssh(host: Host, key_file: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while ssh(host, key_file, "true").returncode:
        assert time.monotonic() < deadline, (host.folder / "sshd.log").read_text()
        time.sleep(0.2)


def ssh(host: Host, key_file: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a host, in a login shell as Ray does."""
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=5"]
    return subprocess.run(
        ["ssh", "-q", "-i", str(key_file), *(f"-o{option}" for option in options), f"root@{host.address}", command],
        capture_output=True,
        text=True,
        check=False,
    )


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
