"""How the system treats the server's threads: a worker is not interrupted, and loading waits for everybody.

On a busy machine every message that comes in would stop a worker in the middle of a network and empty its caches,
only for the message to wait until that worker is done. So whatever is not a worker belongs to the scheduling class
SCHED_BATCH (sched(7)): it gets its share, and an idle core at once, but pushes nobody aside when it wakes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

LOADER_THREAD = "lathe-loader"
_ended: deque[tuple[int, float]] = deque(maxlen=1000)


@contextlib.contextmanager
def _as_far_as_allowed() -> Iterator[None]:
    """Other systems and strict containers have no such classes or no right to them: then all threads are alike."""
    with contextlib.suppress(OSError, AttributeError):
        yield


def let_workers_finish() -> None:
    """For the calling thread and all that it will start."""
    with _as_far_as_allowed():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def become_worker(core: int | None = None) -> None:
    """For the calling thread.

    Args:
        core: the only one that it may run on.
    """
    with _as_far_as_allowed():
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if core is not None:
        with _as_far_as_allowed():
            os.sched_setaffinity(0, {core})


def become_loader() -> None:
    """For the calling thread: what others leave over."""
    with _as_far_as_allowed():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


async def beside(work: Callable[[], T], *, in_haste: bool = False) -> T:
    """Runs blocking work on a thread of its own: a daemon, because what hangs must not hold the exit.

    Args:
        in_haste: somebody waits for it, and it computes little; else it takes what others leave over.
    """
    done: concurrent.futures.Future[T] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        if not in_haste:
            become_loader()
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001  raised where it is awaited
            done.set_exception(error)
        finally:
            _ended.append((threading.get_native_id(), time.thread_time()))

    threading.Thread(target=run, name=LOADER_THREAD, daemon=True).start()
    return await asyncio.wrap_future(done)


def ended_loaders() -> Iterator[tuple[int, float]]:
    """Threads of `beside` that have ended since this was last asked, by the system's number, with their CPU seconds:
    most live too briefly to be looked at."""
    while _ended:
        yield _ended.popleft()
