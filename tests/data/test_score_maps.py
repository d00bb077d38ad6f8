import dataclasses

import numpy as np
import pytest

from ssdnet_jax.data.datasets import Sample
from ssdnet_jax.data.score_maps import find_map, put_maps
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
