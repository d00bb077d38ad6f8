import threading
import time

import pytest

from ssdnet_jax.runner.side_by_side import side_by_side


def test_tasks_are_done_at_the_same_time_and_each_gives_its_value_or_error():
    met = threading.Barrier(2, timeout=30)

    def fails():
        raise KeyError("a")

    with side_by_side() as work:
        both = [work(met.wait), work(met.wait)]  # neither ends before the other has begun
        failed = work(fails)
        assert sorted(wait() for wait in both) == [0, 1]
        with pytest.raises(KeyError):
            failed()
        values = [work(lambda n=n: n) for n in range(50)]
        assert [wait() for wait in values] == list(range(50))


def test_on_leaving_all_is_done_but_after_an_error_nothing_more_is_begun():
    done = []
    with side_by_side() as work:
        for number in range(20):
            work(lambda n=number: (time.sleep(0.001), done.append(n)))
    assert sorted(done) == list(range(20))
    begun, hold = [], threading.Event()
    with pytest.raises(ZeroDivisionError), side_by_side() as work:
        for number in range(200):
            work(lambda n=number: (begun.append(n), hold.wait(0.05)))
        raise ZeroDivisionError
    assert len(begun) < 200
    assert not [t for t in threading.enumerate() if t.name.startswith("ssdnet-host")]
