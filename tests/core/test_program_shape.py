"""The shape of the compiled programs, which decides their speed: regressions show without a clock.

A step that does more arithmetic than its layers need, falls apart into more loops over memory, or
turns into convolutions that are slow inside a loop or under vmap, fails here.
"""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.config import AUTO, Config
from ssdnet_jax.config_files import load_config
from ssdnet_jax.core.config import NetworkConfig
from ssdnet_jax.core.fit import FitSettings, fit_step, init_fit
from ssdnet_jax.core.lanes import fit_lanes, init_lanes

MOST_OPERATIONS = 1.27  # times those of the products; 1.20 (grid) and 1.11 (auto) were found
MOST_FUSIONS = 310  # 286 were found with jaxlib 0.10.2
AUTO_CHANNELS = 27  # of the features that the default setting fits with 24 components and VGG19


def lowered_step(settings, *, side, channels):
    image = jax.ShapeDtypeStruct((side, side, channels), jnp.float32)
    known = jax.ShapeDtypeStruct((side, side), jnp.float32)
    key = jax.random.key(0)
    state = jax.eval_shape(functools.partial(init_fit, settings=settings), key, image)
    step = functools.partial(fit_step, settings=settings)
    return jax.jit(step).lower(state, image, known, None)


def analytic_products(config: NetworkConfig, *, side: int, channels: int) -> float:
    """Floating-point operations of a step's matrix products, counted from the layers' sizes.

    Each product of the forward pass has two in the backward pass, for the kernel and for its
    input; only the network's input needs none. What the decoder takes from the deeper scale is
    multiplied at that scale's resolution (core/merge.py).
    """
    products, wide = 0, channels  # multiply-adds of the forward pass; channels that come in
    of_input = 0
    for i, (down, up, skip) in enumerate(
        zip(config.channels_down, config.channels_up, config.channels_skip, strict=True)
    ):
        fine, coarse = (side // 2**i) ** 2, (side // 2 ** (i + 1)) ** 2
        deeper = config.channels_up[i + 1] if i + 1 < len(config.channels_up) else down
        first = coarse * 9 * wide * down + fine * wide * skip
        of_input += first if i == 0 else 0
        products += first + coarse * 9 * down * down
        products += coarse * 9 * deeper * up + fine * 9 * skip * up + fine * up * up
        wide = down
    products += side**2 * config.channels_up[0] * channels
    return 2.0 * (3 * products - of_input)


@pytest.mark.parametrize(
    ("settings", "channels"),
    [(Config().fit_settings, 1), (AUTO.fit_settings, AUTO_CHANNELS)],
    ids=["grid", "auto"],
)
def test_a_step_does_little_more_arithmetic_than_its_layers_need(settings, channels):
    side = 128
    lowered = lowered_step(settings, side=side, channels=channels)
    counted = lowered.cost_analysis()["flops"]
    needed = analytic_products(settings.network, side=side, channels=channels)
    # Beside products: normalization, activations, doubling, Adam, and a product for the image's
    # gradient that is only dropped when compiled.
    assert needed < counted < MOST_OPERATIONS * needed, counted / needed


@pytest.fixture(scope="module")
def small_step(production_options):
    """A compiled step of a network with two scales, of the fusions that it has in production."""
    network = NetworkConfig(channels_down=(8, 16), channels_up=(8, 16), channels_skip=(4, 4))
    settings = FitSettings(network, Config().loss, Config().fit)
    return lowered_step(settings, side=32, channels=1).compile(production_options).as_text()


def test_a_compiled_step_falls_into_few_loops_over_memory(small_step):
    fusions = len(re.findall(r" fusion\(", small_step))
    assert fusions < MOST_FUSIONS, fusions


def test_a_compiled_step_has_no_convolution(small_step):
    assert " convolution(" not in small_step
    assert " dot(" in small_step


def lane_program(settings, vgg19, *, side, channels, lanes=3, platforms=None):
    """StableHLO of a block of steps of several lanes, the loop included.

    The network has its first two scales: further ones are made in the same way.
    """
    network = settings.network
    two = {
        name: getattr(network, name)[:2]
        for name in ("channels_down", "channels_up", "channels_skip")
    }
    settings = dataclasses.replace(settings, network=dataclasses.replace(network, **two))
    images = np.zeros((lanes, side, side, channels), np.float32)
    known, active = np.ones((lanes, side, side), np.float32), np.ones(lanes, bool)
    keys = jax.random.split(jax.random.key(0), lanes)
    start = jax.eval_shape(
        functools.partial(init_lanes, settings=settings), keys, images, known, active
    )
    block = jax.jit(functools.partial(fit_lanes, settings=settings))
    lowered = block.trace(start, vgg19, jnp.int32(5)).lower(lowering_platforms=platforms)
    text = lowered.as_text()
    assert "stablehlo.while" in text and "dot_general" in text
    return text


def vgg19_shapes():
    sizes = {"conv1_1": (3, 64), "conv1_2": (64, 64), "conv2_1": (64, 128), "conv2_2": (128, 128)}
    return {
        name: {
            "kernel": jax.ShapeDtypeStruct((3, 3, *channels), jnp.float32),
            "bias": jax.ShapeDtypeStruct(channels[1:], jnp.float32),
        }
        for name, channels in sizes.items()
    }


@pytest.mark.parametrize(
    ("settings", "channels"),
    [(load_config("grid").fit_settings, 1), (AUTO.fit_settings, AUTO_CHANNELS)],
    ids=["grid", "auto"],
)
def test_lanes_are_batched_products_without_any_convolution(settings, channels):
    text = lane_program(settings, None, side=64, channels=channels)
    assert "stablehlo.convolution" not in text
    assert "batching_dims = [0] x [0]" in text


def test_all_products_of_a_bfloat16_fit_are_of_bfloat16():
    """Of a GPU's program; parameters' gradients, sums over all pixels, are float32."""
    settings = dataclasses.replace(
        AUTO.fit_settings, fit=dataclasses.replace(AUTO.fit, precision="bfloat16", seeds=1)
    )
    text = lane_program(settings, None, side=32, channels=AUTO_CHANNELS, platforms=("cuda",))
    tensor = r"tensor<(.*)x(\w+)>"
    line = rf"stablehlo\.dot_general .* : \({tensor}, {tensor}\) -> {tensor}"
    products = [
        (kinds[0], kinds[1], kinds[2])
        for *sizes, kinds in ((m[0], m[2], (m[1], m[3], m[5])) for m in re.findall(line, text))
        if min(math.prod(map(int, size.split("x"))) for size in sizes) > 3 * 200
    ]  # without those of a kernel and one number a channel
    assert len(products) >= 20
    assert {(left, right) for left, right, _ in products} == {("bf16", "bf16")}
    assert {result for _, _, result in products} == {"bf16", "f32"}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("view", ["patch", "image"])
def test_perceptual_lanes_have_forward_convolutions_with_one_kernel_for_all(view, precision):
    """VGG19's kernels are shared, so lanes only lengthen the batch; none is differentiated."""
    fabric = load_config("fabric").fit_settings
    loss = dataclasses.replace(fabric.loss, perceptual_view=view, perceptual_precision=precision)
    settings = dataclasses.replace(fabric, loss=loss)
    text = lane_program(settings, vgg19_shapes(), side=64, channels=1)
    convolutions = re.findall(r"stablehlo\.convolution\(.*", text)
    assert len(convolutions) >= 8  # four layers, of the image and of the reconstruction
    for convolution in convolutions:
        assert_is_forward_with_shared_kernel(convolution)


def assert_is_forward_with_shared_kernel(convolution: str) -> None:
    # A kernel gradient contracts over the batch: its result has no batch dimension in front. A
    # convolution with one kernel a lane has groups.
    assert "dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in convolution, convolution
    assert "feature_group_count = 1" in convolution, convolution
    assert "batch_group_count = 1" in convolution, convolution


def test_the_check_knows_the_slow_convolutions():
    """Both slow forms, as `lax.conv` makes them, are told from a forward convolution."""

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x, kernel = jnp.zeros((2, 1, 8, 8, 3)), jnp.zeros((2, 3, 3, 3, 4))
    loss = lambda kernel, x: jnp.sum(convolve(x, kernel) ** 2)  # noqa: E731
    for slow in (
        jax.jit(jax.vmap(convolve)).lower(x, kernel),
        jax.jit(jax.grad(loss)).lower(kernel[0], x[0]),
    ):
        found = re.findall(r"stablehlo\.convolution\(.*", slow.as_text())
        with pytest.raises(AssertionError):
            for convolution in found:
                assert_is_forward_with_shared_kernel(convolution)
