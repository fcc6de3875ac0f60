"""Something done again and again beside a block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(task: Callable[[], None], every: float, name: str) -> Iterator[None]:
    """Call a task every few seconds, in a thread, until the block ends; a call that has begun is waited for.

    Args:
        task: raises nothing.
        every: seconds between two calls, the first one after as many.
        name: the thread's.
    """
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every):
            task()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
