"""A call that ends in time, whatever its parts wait for."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


def within(seconds: int | float, call: Callable[[], Result]) -> Result:
    """Returns what a call returns, unless that takes too long.

    The time-outs of sockets are of one read each, so that a byte a second outlives them all, and
    resolving a host name has none. Hence the thread: given up on, it goes on until the call itself
    ends, at the latest with the process.

    Raises:
        TimeoutError: it did not return in time.
        BaseException: what the call raised.
    """
    returned: list[Any] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not returned:
        raise TimeoutError(f"no answer within {seconds:g} s")
    result: Result = returned[0]
    return result
