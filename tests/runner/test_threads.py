import threading
import time

import pytest

from ssdnet_jax.runner.threads import hanging, in_advance, read_ahead, side_by_side, write_behind


def test_results_come_in_order_and_only_so_many_before_their_time():
    begun = []

    def task(number):
        def run():
            begun.append(number)
            if number == 3:
                raise ZeroDivisionError
            time.sleep(0.01 * (number % 2))
            return number

        return run

    with read_ahead(map(task, range(8)), 2) as results:
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        assert max(begun) <= 4
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert list(results) == [4, 5, 6, 7]


@pytest.mark.parametrize("how", ["stop", "exception"])
def test_a_thread_that_hangs_keeps_no_run_from_ending(how):
    released, asked = threading.Event(), threading.Event()
    began = time.monotonic()
    try:
        with read_ahead([released.wait, lambda: 1], 2, stop=asked.is_set) as results:
            threading.Timer(0.1, asked.set).start()
            assert list(results) == []
            if how == "exception":
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert how == "exception"
    assert time.monotonic() - began < 5
    assert hanging()
    released.set()
    deadline = time.monotonic() + 5
    while hanging() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not hanging()


def test_tasks_are_done_in_order_and_all_of_them():
    done = []
    with write_behind(2) as write:
        for number in range(9):
            write(lambda number=number: done.append(number))
    assert done == list(range(9))


def test_the_first_failure_ends_it_and_is_known_at_once():
    done = []
    with pytest.raises(ZeroDivisionError), write_behind(1) as write:
        write(lambda: 1 / 0)
        while not write.failed:
            time.sleep(0.001)
        write(lambda: done.append(1))
    assert not done


def test_an_interrupted_run_waits_for_its_writer_only_so_long(monkeypatch):
    monkeypatch.setattr("ssdnet_jax.runner.threads._PATIENCE_SECONDS", 0.3)
    released, done = threading.Event(), []
    with pytest.raises(KeyboardInterrupt), write_behind(4) as write:
        write(lambda: done.append("what was there is written"))
        write(released.wait)
        raise KeyboardInterrupt
    assert done
    released.set()


def test_what_is_done_in_advance_fails_without_a_word_and_is_dropped_at_the_end():
    done, begun, released = [], threading.Event(), threading.Event()

    def last():
        begun.set()
        released.wait()

    with in_advance() as before_use:
        before_use(lambda: done.append(1))
        before_use(lambda: 1 / 0)
        before_use(lambda: done.append(2))
        before_use(last)
        before_use(lambda: done.append(3))
        assert begun.wait(5)
    assert hanging()  # nobody waits for it
    released.set()
    deadline = time.monotonic() + 5
    while hanging() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done == [1, 2] and not hanging()


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
