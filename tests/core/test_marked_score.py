import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.config import AUTO, FeatureConfig
from ssdnet_jax.core.score import score
from ssdnet_jax.core.target import encode
from ssdnet_jax.evaluation.metrics import auprc

FEATURES = FeatureConfig(kind="filters", components=6, fine_components=4)
TILES = dataclasses.replace(
    AUTO, features=FEATURES, score=dataclasses.replace(AUTO.score, tile_size=5)
)
MARKED = dataclasses.replace(
    TILES, score=dataclasses.replace(TILES.score, method="tiles_and_marks")
)
encoded = jax.jit(encode, static_argnames="plan")
scored = jax.jit(score, static_argnames="plan")


def test_a_thin_line_that_tiles_do_not_see_is_marked():
    image = np.random.default_rng(0).normal(0.5, 0.12, (96, 96, 1)).astype(np.float32)
    mask = np.zeros((96, 96), bool)
    mask[range(10, 62), range(62, 10, -1)] = True
    image = np.clip(image - 0.45 * mask[..., None], 0, 1)
    found = []
    for plan in (TILES.plan((96, 96)), MARKED.plan((96, 96))):
        target = encoded(image[None], None, plan=plan)
        found.append(auprc(mask, np.asarray(scored(target, target.values, None, plan=plan).raw[0])))
    of_tiles, of_both = found
    assert of_both > 0.3
    assert of_both > 1.5 * of_tiles


def test_detail_is_compared_at_as_many_positions_and_lies_where_it_is_seen():
    plan = MARKED.plan((72, 72), detailed=True)
    assert plan.detailed and len(plan.compared) == 4
    large = np.random.default_rng(0).random((144, 144, 1), np.float32)
    large[60:76, 100:116] **= 4
    small = large.reshape(72, 2, 72, 2, 1).mean((1, 3))
    target = encoded(small[None], None, plan=plan, details=large[None])
    assert [part.shape for part in target.compared[2:]] == [(1, 36, 36, 4), (1, 36, 36, 6)]
    found = np.asarray(scored(target, target.values, None, plan=plan).raw[0])
    rows, columns = np.nonzero(found > 0.7 * found.max())
    assert abs(rows.mean() - 33.5) < 3
    assert abs(columns.mean() - 53.5) < 3
    with pytest.raises(ValueError, match="no details"):
        encode(jnp.asarray(small[None]), None, plan)
