import dataclasses
import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

from ssdnet_jax.config import Config, from_config_dict
from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.errors import InputError
from ssdnet_jax.methods.registry import make_method
from ssdnet_jax.methods.ssdnet import SSDnet, make_ssdnet
from ssdnet_jax.programs import forget_programs
from ssdnet_jax.runner import stream as module
from ssdnet_jax.runner.batching import Failed
from ssdnet_jax.runner.stream import Failure, Group, Incoming, Stream, localizations

KEY = jax.random.key(0)


class Device(SSDnet):
    """A method on a device that fails when it sees images whose first pixel is bad."""

    BAD = np.float32(0.123)
    fails_in = "encode"

    def _check(self, group, step):
        if step == self.fails_in and any(p.pixels[0, 0, 0] == self.BAD for p in group):
            raise jax.errors.JaxRuntimeError("INTERNAL: the device does not like it")

    def encode(self, group, size):
        self._check(group, "encode")
        return super().encode(group, size)

    def finish(self, group, size, report=None):
        self._check([done.prepared for done in group], "finish")
        return super().finish(group, size)


class FailsInFinish(Device):
    fails_in = "finish"


@pytest.fixture(scope="module")
def config(tiny):
    return from_config_dict({**tiny, "fit": {**tiny["fit"], "max_steps": 2}})


@pytest.fixture(scope="module")
def method(config):
    return make_ssdnet(config, None)


def texture(seed=0, side=32):
    return np.array(grid_texture((side, side), period=8, seed=seed))


def bad():
    image = texture()
    image[0, 0] = Device.BAD
    return image


def incoming(method, images, missing=None):
    for name, image in images.items():
        if isinstance(image, Exception):
            yield Incoming(name, image)
        else:
            decoded = DecodedImage(image, (missing or {}).get(name), ())
            yield Incoming(name, method.prepare(decoded, KEY))


def through(method, images, *, lanes=2, missing=None, **options):
    stream = Stream(method, incoming(method, images, missing))
    return list(stream.results(lanes=lambda bucket: (lanes, 1), **options))


def names(results):
    """Of groups, as lists; of failures, as words."""
    return [r.name if isinstance(r, Failure) else [d.name for d in r.done] for r in results]


def finished(results):
    found = (each for each in results if isinstance(each, Group))
    return {done.name: done for group in found for done in group.done}


def test_images_come_back_in_groups_of_as_many_as_there_are_lanes(method):
    results = through(method, {f"{n}": texture(n) for n in range(5)})
    assert sorted(map(len, names(results))) == [1, 2, 2]
    for group in results:
        assert group.size == 2 and len(group.started) == len(group.done)
        for done in group.done:
            (fit,) = done.fits
            assert fit.stop == StopReason.MAX_STEPS and len(fit.losses) == 2


def test_nothing_goes_through():
    assert through(SSDnet(Config()), {}) == []


def test_images_that_could_not_be_read_are_handed_on(method):
    error = InputError("damaged")
    results = through(method, {"a": texture(), "b": error, "c": texture(1)})
    assert set(finished(results)) == {"a", "c"}
    (failure,) = (each for each in results if isinstance(each, Failure))
    assert (failure.name, failure.error) == ("b", error)


def test_one_bad_image_fails_the_analysis_of_its_group_alone(config):
    images = {"a": texture(), "b": bad(), "c": texture(1), "d": texture(2)}
    results = through(Device(config), images)
    assert set(finished(results)) == {"a", "c", "d"}
    (failure,) = (each for each in results if isinstance(each, Failure))
    assert failure.name == "b" and "does not like it" in str(failure.error)


def test_one_bad_image_fails_the_scoring_of_its_group_alone(config, method):
    images = {"a": texture(), "b": bad(), "c": texture(1), "d": texture(2)}
    failing, results = FailsInFinish(config), {}
    for group in through(failing, images):
        results |= {done.name: result for done, _, result in localizations(failing, group)}
    assert set(results) == set(images)
    assert isinstance(results.pop("b"), jax.errors.JaxRuntimeError)
    for group in through(method, {name: images[name] for name in results}):
        for done, _, expected in localizations(method, group):
            found = results[done.name]()
            np.testing.assert_allclose(found.score_map, expected().score_map, rtol=1e-3, atol=1e-5)


def test_a_device_too_small_for_a_batch_does_images_one_at_a_time(config):
    @dataclasses.dataclass(frozen=True)
    class Small(SSDnet):
        def encode(self, group, size):
            if size > 1:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
            return super().encode(group, size)

        def finish(self, group, size, report=None):
            if size > 1:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
            return super().finish(group, size)

    # The last group has one image only, and a batch of two all the same.
    small = Small(config)
    groups = through(small, {f"{n}": texture(n) for n in range(3)})
    results = [result for group in groups for _, _, result in localizations(small, group)]
    assert len(results) == 3 and not any(isinstance(each, Exception) for each in results)


def test_an_error_of_the_program_itself_is_not_an_images(config):
    class Wrong(SSDnet):
        def encode(self, group, size):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        through(Wrong(config), {"a": texture()})


def test_an_image_fails_with_any_of_its_seeds(config, monkeypatch):
    fit_stream = module.fit_stream

    def limited(take, **options):
        for result in fit_stream(take, **options):
            broken = (result.name.image, result.name.seed) == ("a", 1)
            yield Failed(result.name, MemoryError("full")) if broken else result

    monkeypatch.setattr(module, "fit_stream", limited)
    seeds = dataclasses.replace(config.fit, seeds=3)
    method = make_ssdnet(dataclasses.replace(config, fit=seeds), None)
    results = through(method, {"a": texture(), "b": texture(1)})
    assert names(results) == ["a", ["b"]]
    (done,) = finished(results).values()
    assert [fit.name.seed for fit in done.fits] == [0, 1, 2]
    assert len({fit.reconstruction.value.tobytes() for fit in jax.device_get(done.fits)}) == 3


def test_an_incomplete_image_is_inpainted_and_then_fitted_with_the_others(method):
    missing = {"b": np.zeros((32, 32), bool)}
    missing["b"][4:9, 4:9] = True
    stages = []
    results = through(
        method,
        {"a": texture(), "b": texture(1)},
        missing=missing,
        report=lambda progress: stages.append(progress.stage),
    )
    assert set(stages) == {"inpaint", "fit"}
    done = finished(results)
    assert set(done) == {"a", "b"}
    filled = done["b"].prepared
    assert not filled.incomplete and filled.plan == done["a"].prepared.plan
    assert (filled.fitted[missing["b"]] > 0).all()


def test_images_of_other_sizes_wait_for_their_bucket(config):
    method = make_ssdnet(dataclasses.replace(config, image_size=0), None)
    sides = [32, 40, 32, 40, 32]
    results = through(method, {f"{n}": texture(n, side) for n, side in enumerate(sides)})
    assert set(finished(results)) == set("01234")
    for group in results:
        assert len({done.prepared.fitted.shape for done in group.done}) == 1
    # The bucket with most images waiting goes first, and takes all of its own.
    first, second = names(results)[:2]
    assert sorted(first + second) == ["0", "2", "4"]


def test_a_stream_that_is_told_to_stop_hands_on_what_is_ready(method):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 6

    results = through(method, {f"{n}": texture(n) for n in range(19)}, stop=stop)
    assert 0 < len(finished(results)) < 19


def test_what_images_come_with_is_told_and_those_under_way_are_shown(method):
    told, shown = [], []
    prepared = method.prepare(DecodedImage(texture(), None, ()), KEY)
    images = iter([Incoming("a", prepared, ("only the first frame",)), Incoming("b", prepared)])
    stream = Stream(method, images, warn=told.append, show=shown.append)
    list(stream.results(lanes=lambda bucket: (1, 1)))
    assert told == ["a: only the first frame"]
    assert shown == [["a"], [], ["b"], []]


def test_methods_that_fit_nothing_pass_their_images_on():
    method = make_method("spectral_residual", Config(image_size=32))
    results = through(method, {"a": texture(), "b": texture(1), "c": texture(2)}, lanes=1)
    assert names(results) == [["a"], ["b"], ["c"]]
    for group in results:
        ((done, _, result),) = localizations(method, group)
        assert done.fits == () and result().score_map.shape == (32, 32)


def test_images_of_ever_other_shapes_do_not_fill_the_memory_of_programs(tmp_path, monkeypatch):
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("the limit is Linux's")

    def mapped():
        return maps.read_bytes().count(b"\n")

    limit = tmp_path / "max_map_count"
    monkeypatch.setattr("ssdnet_jax.programs._LIMIT", limit)
    forget_programs()
    least, room, counts = mapped(), 400, []
    limit.write_text(f"{(least + room) / 0.6:.0f}")
    method = make_method("spectral_residual", Config(image_size=0))
    images = {str(n): texture(n, 32 + n) for n in range(24)}  # each takes some 90 pieces
    stream = Stream(method, incoming(method, images))
    for group in stream.results(lanes=lambda bucket: (1, 1)):
        ((_, _, result),) = localizations(method, group)
        assert np.isfinite(result().score_map).all()
        counts.append(mapped())
    assert len(counts) == 24 and max(counts) < least + room + 400
    assert any(later < earlier for earlier, later in itertools.pairwise(counts))
