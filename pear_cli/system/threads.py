"""Work on many items by threads, which decoding and hashing leave free to run."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


THREADS = min(8, cores())
AHEAD = 64  # results that wait to be taken; a million items are never all in memory


def each(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS, ahead: int = AHEAD
) -> Iterator[Result]:
    """The results of `work` in the order of the items; an error or interruption drops what has not begun."""
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
