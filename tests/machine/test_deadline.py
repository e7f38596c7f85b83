import threading
import time

import pytest

from papo.machine.deadline import within


def test_a_call_in_time_returns_or_raises_as_it_would():
    assert within(5, lambda: None) is None
    assert within(5, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)


def test_a_call_is_given_up_on_and_keeps_no_process_alive():
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        within(0.05, lambda: time.sleep(1))
    assert time.monotonic() - started < 0.5
    assert all(thread.daemon for thread in threading.enumerate()[1:])
