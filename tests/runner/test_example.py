import numpy as np

from ssdnet_jax.data.images import write_tiff_map
from ssdnet_jax.data.synthetic import embedded_example
from ssdnet_jax.runner import example
from ssdnet_jax.runner.workdir import Workdir


def test_the_example_is_the_only_image():
    ((name, read),) = example.sources().items()
    image, _, _ = embedded_example()
    assert name == example.NAME
    np.testing.assert_array_equal(read().pixels, image)
    assert read().missing is None


def test_the_verdict_compares_the_written_map_with_the_planted_defect(tmp_path):
    workdir = Workdir(tmp_path, {})
    _, mask, description = embedded_example()
    write_tiff_map(workdir.map_path(example.NAME), mask.astype(np.float32))
    perfect = example.verdict(workdir)
    assert perfect.startswith(f"{description}: AUROC 1.000, average precision 1.000 ")
    assert f"(chance: 0.500 and {mask.mean():.3f})" in perfect
    assert perfect.endswith(str(tmp_path / "heatmaps" / "example.png.png"))
    write_tiff_map(workdir.map_path(example.NAME), np.zeros(mask.shape, np.float32))
    assert f"AUROC 0.500, average precision {mask.mean():.3f}" in example.verdict(workdir)
