"""`heatline run` in a process of its own, to be disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fault_output import markers

HERE = Path(__file__).parent
HEATLINE = (sys.executable, "-c", "import sys; from jobs.cli import main; sys.exit(main())")


def environment(**further: str) -> dict[str, str]:
    """This process's variables, with the networks of `fault_network` on the path."""
    path = [str(HERE.parent), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1", **further}


def hear_ctrl_c() -> None:
    """In a new process: what a shell starts in the background ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Command:
    """A command of heatline that runs by itself.

    Args:
        words: after `heatline`.
        folder: where it runs and where what it prints is kept.
        variables: of its environment; default: `environment()`.
    """

    def __init__(self, words: Sequence[str | Path], folder: Path, variables: Mapping[str, str] | None = None) -> None:
        self.began = time.time()
        self._printed = folder / f"stderr-{time.time_ns()}.txt"
        with self._printed.open("wb") as errors:
            self.process = subprocess.Popen(
                [*HEATLINE, *map(str, words)],
                cwd=folder,
                env=dict(variables or environment()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                preexec_fn=hear_ctrl_c,
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def errors(self) -> str:
        """What it has printed on standard error."""
        return self._printed.read_text(errors="replace")

    def wait_until(self, happened: Callable[[], bool], seconds: float = 300) -> bool:
        """Wait for something; False where the command ended before it.

        Raises:
            TimeoutError: neither happened.
        """
        until = time.monotonic() + seconds
        while not happened():
            if not self.running:
                return happened()
            if time.monotonic() > until:
                raise TimeoutError(f"nothing happened in {seconds:.0f} s; standard error ends in {self.errors[-500:]}")
            time.sleep(0.02)
        return True

    def wait_for_units(self, output: Path, count: int, seconds: float = 300) -> bool:
        """Wait until so many units are committed; False where the command ended before."""
        return self.wait_until(lambda: len(markers(output)) >= count, seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, and it alone."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to it and to what it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self, seconds: float = 300) -> int:
        """Its exit code; it is killed where it takes longer.

        Raises:
            subprocess.TimeoutExpired: it did.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
