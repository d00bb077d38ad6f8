import dataclasses

import numpy as np
import pytest

from ssdnet_jax.data.datasets import Sample
from ssdnet_jax.data.score_maps import find_map, find_own_map, put_maps
from ssdnet_jax.errors import InputError

ABSOLUTE = "/somewhere"


@pytest.mark.parametrize("field", ["category", "defect"])
@pytest.mark.parametrize("name", ["../../..", ABSOLUTE, "a/../../b", "x\0y"])
def test_no_category_and_no_defect_leads_out_of_the_folder_of_maps(tmp_path, field, name):
    good = Sample(tmp_path / "a.png", "a.png", "grid", "hole", None)
    bad = dataclasses.replace(good, relative="b.png", **{field: name})
    np.save(tmp_path / "map.npy", np.zeros((2, 2)))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="expected a relative path without"):
        put_maps(tmp_path / "work" / "maps", [good, bad], lambda sample: tmp_path / "map.npy")
    with pytest.raises(InputError):
        find_map(tmp_path / "work", bad)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_map_that_may_be_of_several_images_is_none_of_them(tmp_path):
    names = ("one/a.png", "two/a.png", "two/b.png", "b.png", "b.jpg")
    samples = [Sample(tmp_path / "set" / n, n, "grid", "hole", None) for n in names]
    maps = tmp_path / "maps"
    for name in ("grid/test/hole/a", "two/b", "b"):
        (maps / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(maps / f"{name}.npy", np.zeros((2, 2)))
    find = find_own_map(maps, samples)
    assert find(samples[2]) == maps / "two/b.npy"
    for sample, other in ((samples[0], "two/a.png"), (samples[1], "one/a.png")):
        with pytest.raises(InputError) as caught:
            find(sample)
        words = f"found one map for {sample.relative} and {other}; expected one an image, such as"
        assert f"a.npy: {words} {sample.relative}.tiff" in str(caught.value)
    with pytest.raises(InputError, match=r"one map for b\.jpg and b\.png"):
        find(samples[4])
    # A map of its own, named as ssdnet names them, goes before the others.
    np.save(maps / "b.jpg.npy", np.ones((2, 2)))
    find = find_own_map(maps, samples)
    assert [find(samples[3]).name, find(samples[4]).name] == ["b.npy", "b.jpg.npy"]
