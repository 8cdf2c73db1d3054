"""
A running Ceph: a monitor, one OSD that keeps its data in memory, and the S3 gateway.

Every process is chrooted into the tree, which is bound read-only to a directory of the test; what
they write goes to a file system in memory mounted inside. So several clusters can run at a time,
and none leaves a trace in the tree. No manager runs: it serves statistics, and slows the start.
The monitor's commits are made fast, or each step of the start would wait for a second.
"""

from __future__ import annotations

import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.ceph.tree import DATA, ceph_tree
from tests.support.loopfs import bound, run, tmpfs
from tests.support.serving import HOST, Running, free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = v2:{host}:{monitor_port}
public_network = 127.0.0.0/8
ms_bind_msgr1 = false
keyring = /{data}/keyring
run_dir = /{data}
mon_data = /{data}/mon
osd_data = /{data}/osd
log_to_file = false
log_to_stderr = true
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
osd_objectstore = memstore
memstore_device_bytes = 8589934592
mon_allow_pool_size_one = true
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
[client]
rgw_data = /{data}/rgw
rgw_frontends = beast endpoint={host}:{gateway_port}
rgw_gc_obj_min_wait = 5
rgw_gc_processor_period = 5
rgw_gc_processor_max_time = 5
"""

MAY = {  # who may do what; with no authentication at all the gateway never came up
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
    "client.gateway": {"mon": "allow rwx", "osd": "allow rwx"},
}


@dataclass(frozen=True, slots=True)
class Keys:
    """What a user of the gateway signs with."""

    access_key: str
    secret_key: str


OWNER = Keys("AKOWNER", "owner-of-the-buckets")
GUEST = Keys("AKGUEST", "guest-may-do-what-policies-say")


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where a cluster's S3 gateway listens, on 127.0.0.1, and its process."""

    port: int
    pid: int


@contextmanager
def cluster(directory: Path) -> Iterator[Gateway]:
    """
    Run a Ceph for the block, with the users OWNER and GUEST; logs go to `directory`.

    Needs root. The first run ever downloads the packages.
    """
    with ExitStack() as stack:
        root = stack.enter_context(bound(ceph_tree(), directory / "ceph"))
        run("mount", "-o", "remount,bind,ro", root)
        stack.enter_context(tmpfs(root / DATA))
        node = _Node(directory, root, stack)
        monitor_port, gateway_port = free_port(), free_port()
        node.configure(monitor_port, gateway_port)
        node.start_monitor(monitor_port)
        node.start_osd()
        node.add_user("owner", OWNER)
        node.add_user("guest", GUEST)
        gateway = node.start("radosgw", "-n", "client.gateway")
        gateway.wait_until_answers(gateway_port)
        yield Gateway(gateway_port, gateway.process.pid)


@dataclass(frozen=True, slots=True)
class _Node:
    """The chroot and what is started in it, which ends with `stack`."""

    directory: Path
    root: Path
    stack: ExitStack

    def configure(self, monitor_port: int, gateway_port: int) -> None:
        """Write the configuration and make a key for everybody who takes part."""
        for name in ("mon", "osd", "rgw"):
            (self.root / DATA / name).mkdir()
        (self.root / DATA / "ceph.conf").write_text(
            CONFIGURATION.format(
                fsid=uuid.uuid4(),
                host=HOST,
                data=DATA,
                monitor_port=monitor_port,
                gateway_port=gateway_port,
            )
        )
        keyring = f"/{DATA}/keyring"
        self.run("ceph-authtool", "--create-keyring", keyring)
        for name, capabilities in MAY.items():
            allowed = (w for service, cap in capabilities.items() for w in ("--cap", service, cap))
            self.run("ceph-authtool", keyring, "--gen-key", "-n", name, *allowed)

    def start_monitor(self, port: int) -> None:
        """Make a map of one monitor, its data, and run it."""
        monitor_map = f"/{DATA}/monmap"
        address = f"[v2:{HOST}:{port}]"
        self.run("monmaptool", "--create", "--addv", "a", address, monitor_map)
        self.ceph("ceph-mon", "-i", "a", "--mkfs", "--monmap", monitor_map)
        self.start("ceph-mon", "-i", "a")

    def start_osd(self) -> None:
        """Tell the monitor of an OSD, make its data, and run it."""
        identity = str(uuid.uuid4())
        self.ceph("ceph", "--connect-timeout", "60", "osd", "new", identity)
        self.ceph("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity)
        self.start("ceph-osd", "-i", "0")

    def add_user(self, name: str, keys: Keys) -> None:
        """Make a user of the gateway."""
        secrets = (f"--access-key={keys.access_key}", f"--secret={keys.secret_key}")
        words = ("user", "create", f"--uid={name}", f"--display-name={name}", *secrets)
        self.ceph("radosgw-admin", *words)

    def ceph(self, program: str, *arguments: str) -> None:
        """Run a program that reads the configuration."""
        self.run(program, "-c", f"/{DATA}/ceph.conf", *arguments)

    def run(self, *command: str) -> None:
        """Run a program to its end."""
        run("env", "LC_ALL=C", "chroot", self.root, *command)

    def start(self, program: str, *arguments: str) -> Running:
        """Run a daemon until the cluster ends."""
        return self.stack.enter_context(
            running(
                *("chroot", self.root),
                *(program, "-c", f"/{DATA}/ceph.conf", "-f", *arguments),
                log=self.directory / f"{program}.log",
                environment={},
            )
        )
