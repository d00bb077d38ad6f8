import dataclasses

import numpy as np
import pytest

from ssdnet_jax.data.fits_file import StoredFits, read_fits, write_fits
from ssdnet_jax.errors import InputError

FITS = StoredFits(
    image=np.linspace(0, 1, 8 * 8, dtype=np.float32).reshape(8, 8, 1),
    reconstructions=np.arange(2 * 8 * 8, dtype=np.float32).reshape(2, 8, 8, 1),
    losses=np.array([[0.5, 0.25, 0.125], [0.5, 0.1, np.nan]], np.float32),
    stop=np.array([2, 1]),
    restorations=np.array([0, 1]),
    size=np.array([20, 30]),
)
ARRAYS = {field.name for field in dataclasses.fields(StoredFits)} - {
    *("path", "ignored", "valid", "detail")
}


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "fits" / "s" / "a.png.npz"
    write_fits(path, FITS)
    found = read_fits(path)
    assert found.path == path
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(FITS, name))
        assert getattr(found, name).dtype == getattr(FITS, name).dtype


def test_fits_that_lie_in_a_file_are_not_written_again(tmp_path):
    write_fits(tmp_path / "a.npz", FITS)
    write_fits(tmp_path / "s" / "b.npz", read_fits(tmp_path / "a.npz"))
    assert (tmp_path / "s" / "b.npz").samefile(tmp_path / "a.npz")
    write_fits(tmp_path / "a.npz", read_fits(tmp_path / "a.npz"))  # onto itself
    assert read_fits(tmp_path / "a.npz").stop.tolist() == [2, 1]


def test_detail_is_kept_as_16_bit_floats(tmp_path):
    detail = np.random.default_rng(0).random((16, 16, 1)).astype(np.float16).astype(np.float32)
    write_fits(tmp_path / "a.npz", dataclasses.replace(FITS, detail=detail))
    found = read_fits(tmp_path / "a.npz").detail
    np.testing.assert_array_equal(found, detail)
    assert found.dtype == np.float32
    assert read_fits(tmp_path / "a.npz").image.shape == FITS.image.shape
    for bad in (detail[:8], detail[..., 0], np.full_like(detail, np.nan)):
        write_fits(tmp_path / "b.npz", dataclasses.replace(FITS, detail=bad))
        refused(tmp_path / "b.npz")


def refused(path):
    with pytest.raises(InputError) as caught:
        read_fits(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be read (") and "\n" not in message
    assert message.endswith("; expected fits of ssdnet")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", b"nothing of the kind"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    refused(tmp_path / "a.npz")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    refused(tmp_path / "a.npz")


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    write_fits(tmp_path / "whole.npz", FITS)
    whole = (tmp_path / "whole.npz").read_bytes()
    for end in range(0, len(whole), 97):
        (tmp_path / "a.npz").write_bytes(whole[:end])
        refused(tmp_path / "a.npz")


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_an_array_that_is_missing_or_of_another_kind_is_refused(tmp_path, name):
    good = {each: getattr(FITS, each) for each in ARRAYS}
    path = tmp_path / "a.npz"
    for bad in (
        {k: v for k, v in good.items() if k != name},
        {**good, name: good[name][0]},
        {**good, name: good[name][:0]},
        {**good, name: good[name].astype(str)},
        {**good, name: np.array([None])},
    ):
        np.savez(path, **bad)
        refused(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"stop": np.array([2, 1, 1])},
        {"restorations": np.array([0])},
        {"size": np.array([20, 30, 3])},
        {"size": np.array([20, 0])},
        {"stop": np.array([2, 77])},
        {"losses": np.full((2, 3), np.nan, np.float32)},
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(tmp_path, changes):
    write_fits(tmp_path / "a.npz", dataclasses.replace(FITS, **changes))
    refused(tmp_path / "a.npz")


def test_masks_of_what_is_judged_go_with_the_fits_and_are_refused_if_they_do_not_fit(tmp_path):
    random = np.random.default_rng(0)
    masks = {"ignored": random.random((20, 30)) < 0.3, "valid": random.random((8, 8)) < 0.7}
    write_fits(tmp_path / "a.npz", dataclasses.replace(FITS, **masks))
    found = read_fits(tmp_path / "a.npz")
    for name, mask in masks.items():
        np.testing.assert_array_equal(getattr(found, name), mask)
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    for broken in ({"ignored": arrays["ignored"][:-1]}, {"valid": np.zeros(8, np.uint8)}):
        np.savez(tmp_path / "b.npz", **{**arrays, **broken})
        refused(tmp_path / "b.npz")
    del arrays["valid"]
    np.savez(tmp_path / "c.npz", **arrays)
    refused(tmp_path / "c.npz")
