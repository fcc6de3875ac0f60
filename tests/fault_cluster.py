"""A Ray cluster of two nodes on this machine, with ports and a folder of its own, whose parts can be killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

RAY = Path(sys.executable).parent / "ray"
TRIALS = 4
"""Ray gives a node half a minute to start, which a machine with other work may not do."""


def free_ports(count: int) -> list[int]:
    """Different TCP ports that nobody listens on."""
    with ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("", 0))
        return [int(one.getsockname()[1]) for one in found]


class Node:
    """`ray start --block`, in a process group of its own.

    Args:
        words: further arguments.
        log: what it prints goes there.
    """

    def __init__(self, words: Sequence[str], log: Path) -> None:
        path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        for _ in range(TRIALS):
            # Zero lets the system choose the workers' ports: two nodes of one machine would take the same ones.
            common = ["--block", "--disable-usage-stats", "--num-cpus=1", "--num-gpus=0", "--min-worker-port=0",
                      "--max-worker-port=0", "--object-store-memory=150000000",
                      f"--dashboard-agent-listen-port={free_ports(1)[0]}"]  # fmt: skip
            with log.open("wb") as printed:
                self._process = subprocess.Popen(
                    [str(RAY), "start", *words, *common],
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=subprocess.STDOUT,
                    # Workers find the networks of `fault_network`, as a user's own have to be found on each node.
                    env={**os.environ, "RAY_AUTH_MODE": "token", "PYTHONPATH": os.pathsep.join(path)},
                    start_new_session=True,
                )
            while self._process.poll() is None:
                if "Ray runtime started" in log.read_text():
                    return
                time.sleep(0.05)
            self.close()
        raise RuntimeError(f"a Ray node did not start: {log.read_text()[-1000:]}")

    @property
    def raylet(self) -> psutil.Process:
        """The process that looks after the node's workers."""
        for child in self.processes():
            if child.name() == "raylet":
                return child
        raise RuntimeError("the node has no raylet any more")

    def processes(self) -> list[psutil.Process]:
        """What the node has started, without its workers."""
        return psutil.Process(self._process.pid).children()

    def workers(self, title: str) -> list[psutil.Process]:
        """The node's worker processes whose title holds a text."""
        found = []
        for child in self.raylet.children():
            with suppress(psutil.Error):
                if title in " ".join([child.name(), *child.cmdline()]):
                    found.append(child)
        return found

    def leave(self) -> None:
        """End it in order: SIGTERM, as a container is ended."""
        self._process.terminate()
        self._process.wait(60)

    def close(self) -> None:
        """End all of it."""
        with suppress(psutil.Error):
            family = [*psutil.Process(self._process.pid).children(recursive=True), psutil.Process(self._process.pid)]
            for one in family:
                with suppress(psutil.Error):
                    one.kill()
        self._process.wait()


class SmallCluster:
    """Two nodes of one CPU each, the second of which can be killed and replaced.

    Args:
        folder: for Ray's files; short, since Ray keeps sockets in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        port, dashboard, client = free_ports(3)
        words = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=true",
                 "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
                 f"--ray-client-server-port={client}"]  # fmt: skip
        self.head = Node(words, folder / "head.log")
        self.address = (folder / "ray_current_cluster").read_text().strip()
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        self._second: Node | None = None
        self._joined = 0

    @property
    def second(self) -> Node:
        """The node beside the head."""
        if self._second is None:
            raise RuntimeError("the second node has left")
        return self._second

    def join(self) -> None:
        """Start the second node."""
        self._joined += 1
        self._second = Node([f"--address={self.address}"], self._folder / f"node-{self._joined}.log")

    def second_leaves(self) -> None:
        """The second node goes in order, as one does that its cloud or its autoscaler takes back."""
        self.second.leave()
        self._second = None

    def kill_second(self) -> None:
        """SIGKILL to the second node's raylet; its workers end when they miss it.

        Raises:
            RuntimeError: it has left before.
        """
        self.second.raylet.send_signal(signal.SIGKILL)
        self.second.close()
        self._second = None

    def kill_control_service(self) -> None:
        """SIGKILL to what the whole cluster hangs on."""
        for child in self.head.processes():
            if child.name() == "gcs_server":
                child.kill()

    def actors(self) -> list[psutil.Process]:
        """Processes of the jobs' workers."""
        return [one for node in (self.head, self._second) if node for one in node.workers("UnitActor")]

    def supervisors(self) -> list[psutil.Process]:
        """Processes that look after submitted jobs."""
        return self.head.workers("JobSupervisor")

    def __enter__(self) -> Self:
        """The cluster, with both nodes."""
        try:
            self.join()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the nodes."""
        del kind, error, trace
        self.close()

    def close(self) -> None:
        """End the nodes."""
        for node in (self._second, self.head):
            if node:
                node.close()
