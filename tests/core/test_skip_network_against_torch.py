"""The skip network beside the same network in PyTorch, built from `torch.nn.functional`.

In float64 rounding plays no part, so agreement there is agreement of the functions. In float32 our
gradients are held to PyTorch's in float64, which they meet more closely than PyTorch's own in
float32 do (test_skip_network.py has the figures of the recorded file).
"""

import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssdnet_jax.core.config import NetworkConfig
from ssdnet_jax.core.skip_network import apply_skip_network

_spec = importlib.util.spec_from_file_location(
    "torch_parameters", Path(__file__).with_name("torch_parameters.py")
)
torch_parameters = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(torch_parameters)
skip_parameters_from_torch = torch_parameters.skip_parameters_from_torch

torch = pytest.importorskip("torch")
from torch.nn import functional  # noqa: E402

SMALL = {"channels_down": (4, 6), "channels_up": (5, 3), "channels_skip": (2, 3)}
SOME_SKIPS = SMALL | {"channels_skip": (0, 2)}
NO_SKIPS = SMALL | {"channels_skip": (0, 0)}
EVEN, ODD = (2, 2, 16, 24), (1, 1, 19, 14)
OPTIONS = {
    "as published": (NetworkConfig(**SMALL), EVEN),
    "as published, odd sides": (NetworkConfig(**SMALL), ODD),
    "nearest, no 1x1, no sigmoid": (
        NetworkConfig(**SMALL, upsampling="nearest", conv1x1_up=False, sigmoid=False),
        EVEN,
    ),
    "zero padding, larger kernels, odd sides": (
        NetworkConfig(**SMALL, padding="zero", kernel_down=5, kernel_up=5, kernel_skip=3),
        ODD,
    ),
    "zero padding, nearest, one skip, elu": (
        NetworkConfig(**SOME_SKIPS, padding="zero", upsampling="nearest", activation="elu"),
        EVEN,
    ),
    "no skips, swish": (NetworkConfig(**NO_SKIPS, activation="swish"), EVEN),
    "no activation": (NetworkConfig(**SMALL, activation="none"), EVEN),
}
ACTIVATIONS = {
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
    "elu": functional.elu,
    "swish": functional.silu,
    "none": lambda x: x,
}


# --- the network in PyTorch ----------------------------------------------------------------------


def torch_network(tensor, x, config):
    """Deep Image Prior's `skip`, NCHW; `tensor(name, shape)` gives its parameters."""
    reflects = config.padding == "reflection"

    def convolution(x, name, features, kernel, stride=1):
        name = f"{name}.{1 if reflects else 0}"
        weight = tensor(f"{name}.weight", (features, x.shape[1], kernel, kernel))
        margin = (kernel - 1) // 2
        if reflects and margin:
            x = functional.pad(x, (margin,) * 4, mode="reflect")
        bias = tensor(f"{name}.bias", (features,))
        return functional.conv2d(x, weight, bias, stride, 0 if reflects else margin)

    def normalization(x, name):
        weight, bias = (tensor(f"{name}.{part}", (x.shape[1],)) for part in ("weight", "bias"))
        return functional.batch_norm(x, None, None, weight, bias, training=True, eps=1e-5)

    def block(x, names, features, kernel, stride=1):
        x = normalization(convolution(x, names[0], features, kernel, stride), names[1])
        return ACTIVATIONS[config.activation](x)

    def scale(x, prefix, index):
        down, up = config.channels_down[index], config.channels_up[index]
        skip = config.channels_skip[index]
        deep = f"{prefix}1.1." if skip else f"{prefix}1."
        y = block(x, (f"{deep}1", f"{deep}2"), down, config.kernel_down, stride=2)
        y = block(y, (f"{deep}4", f"{deep}5"), down, config.kernel_down)
        if index + 1 < len(config.channels_down):
            y = scale(y, f"{deep}7.", index + 1)
        aligned = {"align_corners": False} if config.upsampling == "bilinear" else {}
        y = functional.interpolate(y, scale_factor=2, mode=config.upsampling, **aligned)
        if skip:
            names = f"{prefix}1.0.1", f"{prefix}1.0.2"
            y = torch.cat(cropped(block(x, names, skip, config.kernel_skip), y), dim=1)
        y = normalization(y, f"{prefix}2")
        y = block(y, (f"{prefix}3", f"{prefix}4"), up, config.kernel_up)
        return block(y, (f"{prefix}6", f"{prefix}7"), up, 1) if config.conv1x1_up else y

    y = convolution(scale(x, "", 0), "9" if config.conv1x1_up else "6", x.shape[1], 1)
    return torch.sigmoid(y) if config.sigmoid else y


def cropped(a, b):
    height, width = (min(a.shape[axis], b.shape[axis]) for axis in (2, 3))

    def crop(x):
        top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
        return x[:, :, top : top + height, left : left + width]

    return crop(a), crop(b)


def drawn_tensors(config, x):
    """Random parameters by their names in torch, as many as the network asks for."""
    generator = np.random.default_rng(0)
    drawn = {}

    def draw(name, shape):
        drawn[name] = generator.uniform(-0.5, 0.5, shape) + (len(shape) == 1)
        return torch.tensor(drawn[name])

    torch_network(draw, torch.tensor(x), config)
    return drawn


def torch_step(tensors, x, target, config):
    """Output, loss, gradients, and the output after a step of Adam, all in float64."""
    leaves = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in tensors.items()
    }
    x, target = (torch.tensor(a, dtype=torch.float64) for a in (x, target))

    def forward():
        return torch_network(lambda name, shape: leaves[name].reshape(shape), x, config)

    optimizer = torch.optim.Adam(leaves.values(), lr=0.01)
    output = forward()
    loss = functional.mse_loss(output, target)
    loss.backward()
    gradient = {name: leaf.grad.numpy().copy() for name, leaf in leaves.items()}
    optimizer.step()
    with torch.no_grad():
        after = forward().numpy()
    return output.detach().numpy(), loss.item(), gradient, after


# --- ours ----------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="config")
def our_gradient(params, x, target, config):
    def loss(params):
        output = apply_skip_network(params, x, config)
        return jnp.mean((output - target) ** 2), output

    (loss, output), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return output, loss, gradient


@functools.partial(jax.jit, static_argnames="config")
def our_output_after_adam(params, gradient, x, config):
    optimizer = optax.adam(0.01)
    updates, _ = optimizer.update(gradient, optimizer.init(params))
    return apply_skip_network(optax.apply_updates(params, updates), x, config)


def as_ours(tensors, x, target, config, dtype):
    params = skip_parameters_from_torch(tensors, config)
    params = jax.tree.map(lambda a: jnp.asarray(a, dtype), params)
    return params, *(jnp.asarray(np.moveaxis(a, 1, -1), dtype) for a in (x, target))


def assert_near(actual, expected, *, tolerance):
    """Within `tolerance` of the largest expected value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def nhwc(array):
    return np.moveaxis(array, 1, -1)


def assert_gradients_near(gradient, torch_gradient, config, *, tolerance):
    expected = skip_parameters_from_torch(torch_gradient, config)
    compared = 0
    for (path, a), e in zip(
        jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(expected), strict=True
    ):
        # A bias in front of a normalization has no effect, and without activations neither have
        # shifts in front of one; their gradients are rounding noise.
        if np.linalg.norm(e) > 1e-5:
            scale = np.abs(e).max()
            a = np.asarray(a)
            np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * scale, err_msg=str(path))
            compared += 1
    assert compared > len(torch_gradient) / 3


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_computes_what_torch_computes(options):
    config, shape = OPTIONS[options]
    generator = np.random.default_rng(1)
    x, target = generator.random(shape), generator.random(shape)
    tensors = drawn_tensors(config, x)
    output, loss, torch_gradient, _ = torch_step(tensors, x, target, config)
    with jax.enable_x64():
        params, x, target = as_ours(tensors, x, target, config, jnp.float64)
        ours, our_loss, gradient = our_gradient(params, x, target, config)
    assert_near(ours, nhwc(output), tolerance=1e-10)
    assert float(our_loss) == pytest.approx(loss, rel=1e-10)
    assert_gradients_near(gradient, torch_gradient, config, tolerance=1e-9)


@pytest.fixture(scope="module")
def golden(golden_file):
    """Tensors, input, target and configuration of a recorded network; torch's step in float64."""
    _, file, config = golden_file
    tensors = {str(name): file[f"param/{name}"] for name in file["param_order"]}
    given = tensors, file["input"], file["target"], config
    return given, torch_step(*given)


def test_in_float64_recorded_networks_are_torchs_to_rounding(golden):
    given, (output, loss, torch_gradient, after) = golden
    config = given[-1]
    with jax.enable_x64():
        params, x, target = as_ours(*given, jnp.float64)
        ours, our_loss, gradient = our_gradient(params, x, target, config)
        our_after = our_output_after_adam(params, gradient, x, config)
    assert_near(ours, nhwc(output), tolerance=1e-12)
    assert float(our_loss) == pytest.approx(loss, rel=1e-12)
    assert_gradients_near(gradient, torch_gradient, config, tolerance=1e-11)
    assert_near(our_after, nhwc(after), tolerance=1e-9)


def test_in_float32_output_and_gradients_are_within_1e_4_of_torchs_in_float64(golden):
    given, (output, loss, torch_gradient, _) = golden
    params, x, target = as_ours(*given, jnp.float32)
    ours, our_loss, gradient = our_gradient(params, x, target, given[-1])
    assert_near(ours, nhwc(output), tolerance=1e-4)
    assert float(our_loss) == pytest.approx(loss, rel=1e-4)
    assert_gradients_near(gradient, torch_gradient, given[-1], tolerance=1e-4)


def test_in_float32_a_step_along_the_same_gradient_gives_the_same_output(golden):
    # Adam's first step is little but the sign of the gradient, which rounding decides where the
    # gradient is next to nothing. So the step is compared, and not the rounding in front of it.
    (tensors, x, target, config), (_, _, torch_gradient, after) = golden
    params, x_ours, _ = as_ours(tensors, x, target, config, jnp.float32)
    gradient, _, _ = as_ours(torch_gradient, x, target, config, jnp.float32)
    output = our_output_after_adam(params, gradient, x_ours, config)
    assert_near(output, nhwc(after), tolerance=1e-4)
