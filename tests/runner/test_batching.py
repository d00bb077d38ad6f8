import dataclasses

import jax
import numpy as np
import pytest

from ssdnet_jax.config import from_config_dict
from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.methods.base import Job, alone
from ssdnet_jax.runner import devices
from ssdnet_jax.runner.batching import Failed, fit_stream


@pytest.fixture(scope="module")
def settings(tiny):
    values = {**tiny, "fit": {**tiny["fit"], "max_steps": 12, "stop_threshold": 0.03}}
    return from_config_dict(values).fit_settings


def with_fit(settings, **changes):
    return dataclasses.replace(settings, fit=dataclasses.replace(settings.fit, **changes))


@pytest.fixture(scope="module")
def jobs(settings):
    known = np.ones((32, 32), np.float32)

    def job(seed):
        image = np.asarray(grid_texture((32, 32), period=5 + seed, seed=seed))
        return Job(seed, "fit", jax.random.key(seed), alone(image), known, settings)

    return [job(seed) for seed in range(5)]


def stream(jobs, **options):
    waiting = list(jobs)

    def take(most):
        assert most > 0
        taken = waiting[:most]
        del waiting[:most]
        return taken

    return {r.name: r for r in fit_stream(take, **options)}


def assert_same(actual, expected):
    np.testing.assert_array_equal(actual.reconstruction.value, expected.reconstruction.value)
    np.testing.assert_array_equal(actual.losses, expected.losses)
    np.testing.assert_array_equal(actual.params.value, expected.params.value)
    assert (actual.stop, actual.restorations) == (expected.stop, expected.restorations)


@pytest.fixture(scope="module")
def in_pairs(jobs):
    return stream(jobs, lanes=2)


def test_every_job_comes_back_however_many_lanes_there_are(jobs, in_pairs):
    alone = stream(jobs)
    assert set(alone) == set(in_pairs) == set(range(5))
    assert len({len(fit.losses) for fit in alone.values()}) > 1
    for name, fit in alone.items():
        # Across lane counts sums are taken in another order.
        close = {"rtol": 1e-3, "atol": 1e-3}
        in_pair = in_pairs[name]
        np.testing.assert_allclose(in_pair.reconstruction.value, fit.reconstruction.value, **close)
        assert len(in_pair.losses) == len(fit.losses)


def test_order_and_neighbours_change_nothing_bit_for_bit(jobs, in_pairs):
    for order in ([4, 3, 2, 1, 0], [2, 0], [1]):  # the last leaves a lane without a job
        for name, fit in stream([jobs[n] for n in order], lanes=2).items():
            assert_same(fit, in_pairs[name])


def test_nothing_to_do():
    assert stream([]) == {}


def test_progress_counts_steps_of_running_lanes(jobs, settings):
    seen = []
    endless = with_fit(settings, stop_threshold=0.0)
    stream([dataclasses.replace(jobs[0], settings=endless)], report=seen.append)
    assert [p.step for p in seen][:3] == [0, 1, 3]
    assert np.isnan(seen[0].loss) and seen[-1].loss > 0
    assert {(p.stage, p.total) for p in seen} == {("fit", 12)}


def test_a_stream_that_is_told_to_stop_gives_up_between_blocks(jobs, settings):
    seen = []
    endless = with_fit(settings, stop_threshold=0.0)
    endless_jobs = [dataclasses.replace(job, settings=endless) for job in jobs]
    results = stream(endless_jobs, report=seen.append, stop=lambda: len(seen) > 2)
    assert results == {}
    assert [p.step for p in seen] == [0, 1, 3]  # the block that ran was finished, no other begun


def out_of_memory(monkeypatch, at_most):
    """A device that cannot hold more than so many lanes."""
    fit_program = devices.fit_program

    def limited(*arguments):
        def call(lanes, *rest):
            if lanes.images.shape[0] > at_most:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            return fit_program(*arguments)(lanes, *rest)

        return call

    monkeypatch.setattr(devices, "fit_program", limited)


def test_lanes_are_halved_until_the_device_holds_them(jobs, in_pairs, monkeypatch):
    out_of_memory(monkeypatch, at_most=2)
    results = stream(jobs, lanes=4)
    assert set(results) == set(range(5))
    for name, fit in results.items():
        assert_same(fit, in_pairs[name])


def test_a_job_that_does_not_fit_even_alone_fails_with_the_devices_words(jobs, monkeypatch):
    out_of_memory(monkeypatch, at_most=0)
    results = stream(jobs[:3], lanes=2)
    assert set(results) == {0, 1, 2}
    for result in results.values():
        assert isinstance(result, Failed) and "Out of memory" in str(result.error)


def test_results_say_why_fits_ended(jobs, in_pairs, settings):
    for fit in in_pairs.values():
        assert fit.stop == StopReason.THRESHOLD and len(fit.losses) < 12
        assert fit.losses[-1] < 0.03 and (fit.losses[:-1] >= 0.03).all()
    endless = with_fit(settings, stop_threshold=0.0)
    (fit,) = stream([dataclasses.replace(jobs[0], settings=endless)]).values()
    assert fit.stop == StopReason.MAX_STEPS and len(fit.losses) == 12
