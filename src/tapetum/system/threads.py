"""Work that waits for others, such as requests to another machine, done by threads ahead of time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def in_turn(function: Callable[[A], B], things: Iterable[A], at_once: int) -> Iterator[B]:
    """Call a function on things and yield what it returns, in their order.

    Args:
        at_once: how many calls are made at a time, and how many results are kept ahead of what is taken; 1 uses no
            threads.
    """
    if at_once == 1:
        yield from map(function, things)
        return
    pool = ThreadPoolExecutor(at_once)
    try:
        ahead: deque[Future[B]] = deque()
        for thing in things:
            ahead.append(pool.submit(function, thing))
            if len(ahead) > at_once:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        # Without waiting: what is abandoned after an error may be collected by the very thread that serves the others.
        pool.shutdown(wait=False, cancel_futures=True)
