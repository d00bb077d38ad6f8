from pathlib import Path

import pytest

from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.errors import InputError
from ssdnet_jax.experiments.conditions import Condition
from ssdnet_jax.experiments.reproduce import Protocol, corrupted_samples
from ssdnet_jax.experiments.scoring import defective


def sample(category, defect, name):
    return Sample(Path(name), f"{category}/{defect}/{name}", category, defect, None)


def test_the_first_image_of_each_kind_of_defect_is_corrupted_or_each_nth_of_a_category():
    kinds = [("grid", "bent"), ("grid", "bent"), ("grid", "glue"), ("tile", "bent")]
    samples = [sample(*kind, str(number)) for number, kind in enumerate(kinds)]
    assert [s.path.name for s in corrupted_samples(samples, 0)] == ["0", "2", "3"]
    assert [s.path.name for s in corrupted_samples(samples, 2)] == ["0", "2", "3"]
    assert [s.path.name for s in corrupted_samples(samples, 3)] == ["0", "3"]
    assert corrupted_samples(samples, 1) == samples


def test_good_images_are_left_out():
    good = sample("grid", "good", "0")
    assert defective([good, sample("grid", "bent", "1")]) == [sample("grid", "bent", "1")]
    with pytest.raises(InputError, match="only good images"):
        defective([good])


def test_parts_decide_which_corruptions_there_are():
    protocol = Protocol(("ssdnet",), (0,), ("table", "noise"), noise=(0.0, 0.025), missing=(0.1,))
    assert protocol.corruptions == (("noise", 0.0), ("noise", 0.025))
    found = Protocol(("fca",), (0,), missing_values="zero").condition("missing", 0.1)
    assert found == Condition(missing=0.1, missing_values="zero")
