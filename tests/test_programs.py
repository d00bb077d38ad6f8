import functools
import gc
import threading
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.config import from_config_dict
from ssdnet_jax.core.fit import fit_block, init_fit
from ssdnet_jax.programs import forget_programs, make_room_for_programs, program

X = jnp.arange(6.0).reshape(2, 3)


def scale(x, y, settings):
    scale.traced += 1
    return {"scaled": settings * x + y}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A compilation cache folder, and programs forgotten as by a new process."""
    monkeypatch.setattr(scale, "traced", 0, raising=False)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    forget_programs()
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)
    forget_programs()


def test_a_program_computes_its_function(cache):
    result = program(scale, X, 1.0, settings=3.0)(X, 1.0)
    np.testing.assert_array_equal(result["scaled"], 3 * X + 1)


def test_a_second_start_does_not_trace(cache):
    first = program(scale, X, X, settings=2.0)(X, X)
    assert scale.traced == 1
    forget_programs()
    again = program(scale, X, X, settings=2.0)(X, X)
    assert scale.traced == 1
    np.testing.assert_array_equal(again["scaled"], first["scaled"])


@pytest.mark.parametrize(
    ("arguments", "settings"), [((X, X), 5.0), ((X[:1], X[:1]), 2.0), ((X.astype(int), X), 2.0)]
)
def test_other_settings_shapes_and_types_are_other_programs(cache, arguments, settings):
    program(scale, X, X, settings=2.0)(X, X)
    forget_programs()
    result = program(scale, *arguments, settings=settings)(*arguments)
    assert scale.traced == 2
    np.testing.assert_array_equal(result["scaled"], settings * arguments[0] + arguments[1])


def test_programs_of_many_shapes_are_not_all_kept_in_memory(cache):
    # 65,530 pieces of memory hold the programs of some twenty shapes of pictures, then XLA crashes.
    client = jax.devices()[0].client
    first = program(scale, X, X, settings=2.0)
    first(X, X)
    before = len(client.live_executables())
    for width in range(7, 7 + 100):
        wide = np.ones((2, width), np.float32)
        np.testing.assert_array_equal(
            program(scale, wide, wide, settings=2.0)(wide, wide)["scaled"], 3 * wide
        )
    gc.collect()
    assert len(client.live_executables()) < before + 70
    assert program(scale, X, X, settings=2.0) is not first
    assert scale.traced == 101  # the first came from disk


def test_a_damaged_file_is_traced_again_and_replaced(cache):
    program(scale, X, X, settings=2.0)
    (file,) = cache.glob("ssdnet-*.stablehlo")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    forget_programs()
    result = program(scale, X, X, settings=2.0)(X, X)
    np.testing.assert_array_equal(result["scaled"], 3 * X)
    assert scale.traced == 2
    forget_programs()
    program(scale, X, X, settings=2.0)(X, X)
    assert scale.traced == 2


def test_without_a_cache_folder_nothing_is_written(cache):
    jax.config.update("jax_compilation_cache_dir", None)
    result = program(scale, X, X, settings=2.0)(X, X)
    np.testing.assert_array_equal(result["scaled"], 3 * X)
    assert not list(cache.iterdir())


def test_fits_from_disk_equal_fits_traced_now(cache, tiny):
    settings = from_config_dict(tiny).fit_settings
    image = jax.random.uniform(jax.random.key(1), (32, 32, 1))
    arguments = (image, jnp.ones((32, 32)), None, jnp.int32(3))

    def history():
        start = program(init_fit, jax.random.key(0), image, settings=settings)
        state = start(jax.random.key(0), image)
        block = program(fit_block, state, *arguments, settings=settings, donate=(0,))
        return np.asarray(block(state, *arguments).history)

    traced = history()
    assert len(list(cache.glob("ssdnet-*.stablehlo"))) == 2
    forget_programs()
    np.testing.assert_array_equal(history(), traced)
    assert len(list(cache.glob("ssdnet-*.stablehlo"))) == 2
    state = functools.partial(init_fit, settings=settings)(jax.random.key(0), image)
    plain = fit_block(state, *arguments, settings=settings)
    np.testing.assert_allclose(traced[:3], plain.history[:3], rtol=1e-4)


def test_programs_that_are_forgotten_are_freed(cache):
    program(scale, X, 1.0, settings=7.0)(X, 1.0)
    forgotten = weakref.ref(program(scale, X, 1.0, settings=7.0))
    assert forgotten() is not None
    forget_programs()
    gc.collect()
    assert forgotten() is None


MAPS = Path("/proc/self/maps")
of_linux = pytest.mark.skipif(not MAPS.exists(), reason="the limit is Linux's")


def mapped():
    return MAPS.read_bytes().count(b"\n")


@of_linux
def test_programs_that_jax_keeps_by_itself_go_before_they_are_too_many(tmp_path, monkeypatch):
    limit = tmp_path / "max_map_count"
    monkeypatch.setattr("ssdnet_jax.programs._LIMIT", limit)
    forget_programs()
    before = mapped()
    limit.write_text(f"{2 * before}\n")  # most of it is not in use
    assert before < 0.6 * 2 * before and not make_room_for_programs()
    width = 3
    while mapped() < 1.25 * before:
        np.testing.assert_array_equal(jnp.cumsum(np.ones(width) + 1), 2 * np.arange(1, width + 1))
        width += 1
    assert make_room_for_programs()
    assert mapped() < 1.1 * before
    monkeypatch.setattr("ssdnet_jax.programs._LIMIT", tmp_path / "absent")
    assert not make_room_for_programs()


def test_programs_are_freed_while_other_threads_trace_compile_and_run(cache):
    ended, wrong = threading.Event(), []

    def work(first):
        side = first
        while not ended.is_set():
            side = first + (side + 2 - first) % 40
            x = np.ones((side, side), np.float32)
            try:
                np.testing.assert_array_equal(jnp.pad(x @ x, 1).sum(), side**3)
                np.testing.assert_array_equal(
                    program(scale, x, x, settings=2.0)(x, x)["scaled"], 3 * x
                )
            except BaseException as error:
                wrong.append(error)
                return

    threads = [threading.Thread(target=work, args=(first,)) for first in (4, 5)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        ended.wait(0.03)
        forget_programs()
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong


def transformed(image):
    spectrum = jnp.fft.rfft2(image)
    again = [jnp.fft.irfft2(spectrum * share, s=image.shape) for share in (0.3, 0.7, 1.1)]
    return spectrum, again


def test_fourier_transforms_give_the_same_bits_each_time(cache):
    # XLA shares their rows out among threads that happen to be free, unless it is told not to.
    image = np.random.default_rng(0).normal(size=(384, 384)).astype(np.float32)
    compiled = program(transformed, image, in_one_thread=True)
    first = jax.device_get(compiled(image))
    for _ in range(40):
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(compiled(image)), first)
