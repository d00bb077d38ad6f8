"""The embedded example: a real texture with a planted defect, and how well it was found."""

from collections.abc import Callable

from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.runner.workdir import Workdir

NAME = "example.png"


def sources() -> dict[str, Callable[[], DecodedImage]]:
    """The example as the only image of a run."""

    def read() -> DecodedImage:
        from ssdnet_jax.data.synthetic import embedded_example

        image, _, _ = embedded_example()
        return DecodedImage(image, None, ())

    return {NAME: read}


def verdict(workdir: Workdir) -> str:
    """One line: AUROC and average precision of the written map against the planted mask."""
    import tifffile

    from ssdnet_jax.data.synthetic import embedded_example
    from ssdnet_jax.evaluation.metrics import pixel_metrics

    _, mask, description = embedded_example()
    score_map = tifffile.imread(workdir.map_path(NAME))
    found = pixel_metrics(mask, score_map)  # without scikit-learn, which takes long to import
    return (
        f"{description}: AUROC {found.auroc:.3f}, "
        f"average precision {found.auprc:.3f} "
        f"(chance: 0.500 and {mask.mean():.3f}); see {workdir.heatmap_path(NAME)}"
    )
