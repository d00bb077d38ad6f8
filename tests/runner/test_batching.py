import dataclasses

import jax
import numpy as np
import pytest

from ssdnet_jax import stages
from ssdnet_jax.config import from_config_dict
from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.runner import devices
from ssdnet_jax.runner.batching import Failed, fit_stream

pytestmark = pytest.mark.usefixtures("fast_compilation")


@pytest.fixture(scope="module")
def config(tiny):
    values = {**tiny, "fit": {**tiny["fit"], "max_steps": 12, "stop_threshold": 0.03}}
    return from_config_dict(values)


@pytest.fixture(scope="module")
def jobs(config):
    def job(seed):
        prepared = stages.prepare(grid_texture((32, 32), period=5 + seed, seed=seed), config)
        return stages.fit_jobs(prepared, config, jax.random.key(seed), [seed])[0]

    return [job(seed) for seed in range(5)]


def stream(jobs, **options):
    waiting = iter(jobs)
    return {r.name: r for r in fit_stream(lambda: next(waiting, None), **options)}


def assert_same(actual, expected):
    np.testing.assert_array_equal(actual.reconstruction, expected.reconstruction)
    np.testing.assert_array_equal(actual.losses, expected.losses)
    np.testing.assert_array_equal(actual.params, expected.params)
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
        np.testing.assert_allclose(in_pairs[name].reconstruction, fit.reconstruction, **close)
        assert len(in_pairs[name].losses) == len(fit.losses)


def test_order_and_neighbours_change_nothing_bit_for_bit(jobs, in_pairs):
    for order in ([4, 3, 2, 1, 0], [2, 0], [1]):
        for name, fit in stream([jobs[n] for n in order], lanes=2).items():
            assert_same(fit, in_pairs[name])


def test_lanes_without_a_job_change_nothing_bit_for_bit(jobs):
    full, padded = stream(jobs[:4], lanes=4), stream(jobs[:2], lanes=4)
    assert set(padded) == {0, 1}
    for name, fit in padded.items():
        assert_same(fit, full[name])


def test_nothing_to_do(jobs):
    assert stream([]) == {}


def test_progress_counts_steps_of_running_lanes(jobs):
    seen = []
    settings = jobs[0].settings
    endless = dataclasses.replace(settings.fit, stop_threshold=0.0)
    settings = dataclasses.replace(settings, fit=endless)
    stream([dataclasses.replace(jobs[0], settings=settings)], report=seen.append)
    assert [p.step for p in seen][:3] == [0, 1, 3]
    assert np.isnan(seen[0].loss) and seen[-1].loss > 0
    assert {(p.stage, p.total) for p in seen} == {("fit", 12)}


def test_a_stream_that_is_told_to_stop_gives_up_between_blocks(jobs):
    seen = []
    settings = jobs[0].settings
    endless = dataclasses.replace(settings.fit, stop_threshold=0.0)
    settings = dataclasses.replace(settings, fit=endless)
    endless_jobs = [dataclasses.replace(job, settings=settings) for job in jobs]
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
    results = stream(jobs, lanes=8)
    assert set(results) == set(range(5))
    for name, fit in results.items():
        assert_same(fit, in_pairs[name])


def test_a_job_that_does_not_fit_even_alone_fails_with_the_devices_words(jobs, monkeypatch):
    out_of_memory(monkeypatch, at_most=0)
    results = stream(jobs[:3], lanes=2)
    assert set(results) == {0, 1, 2}
    for result in results.values():
        assert isinstance(result, Failed) and "Out of memory" in str(result.error)


def test_a_cpu_takes_one_lane(jobs):
    assert devices.lanes_that_fit((32, 32, 1), jobs[0].settings) == 1


def test_other_devices_take_what_their_memory_holds(jobs, monkeypatch):
    class Device:
        platform = "gpu"

        def __init__(self, lanes):
            analysis = devices._compiled((32, 32, 1), jobs[0].settings).memory_analysis()
            lane = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes
            self.bytes = lanes * lane / 0.8 + 1

        def memory_stats(self):
            return {"bytes_limit": self.bytes}

    for held, expected in ((1, 1), (7, 4), (8, 8), (0.5, 1), (1000, 64)):
        device = Device(held)
        monkeypatch.setattr(jax, "local_devices", lambda device=device: [device])
        assert devices.lanes_that_fit((32, 32, 1), jobs[0].settings) == expected


def test_results_say_why_fits_ended(jobs, in_pairs):
    for fit in in_pairs.values():
        assert fit.stop == StopReason.THRESHOLD and len(fit.losses) < 12
        assert fit.losses[-1] < 0.03 and (fit.losses[:-1] >= 0.03).all()
    strict = dataclasses.replace(jobs[0].settings.fit, stop_threshold=0.0, max_steps=3)
    settings = dataclasses.replace(jobs[0].settings, fit=strict)
    (fit,) = stream([dataclasses.replace(jobs[0], settings=settings)]).values()
    assert fit.stop == StopReason.MAX_STEPS and len(fit.losses) == 3


def test_lanes_are_counted_for_a_perceptual_loss_too(tiny, monkeypatch):
    # Tiny weights in the form of VGG19's: the program cannot even be traced without any.
    sizes = {"conv1_1": (3, 2), "conv1_2": (2, 2), "conv2_1": (2, 2), "conv2_2": (2, 2)}
    vgg19 = {
        name: {"kernel": np.ones((3, 3, *size), np.float32), "bias": np.zeros(size[1], np.float32)}
        for name, size in sizes.items()
    }
    loss = {**tiny["loss"], "w_perc": 1.0, "perceptual_size": 8, "patches_per_step": 2}
    config = from_config_dict({**tiny, "loss": loss})

    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 2**40}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert devices.lanes_that_fit((32, 32, 1), config.fit_settings, vgg19) == 64
