"""One test image of a labelled set, and what its folders and tables call good."""

import dataclasses
from pathlib import Path

from ssdnet_jax.data.shapes import AnnotatedImage

GOOD = "good"
DEFECT = "defect"  # where a layout does not say which
GOOD_NAMES = (GOOD, "ok", "normal", "free")  # of folders and labels, in any case


@dataclasses.dataclass(frozen=True)
class Sample:
    """One test image and its label.

    A good image may have a mask, which is to be empty; a defective one without mask and regions is
    labelled as a whole only.
    """

    path: Path  # absolute path of the image
    relative: str  # its name within the set, with forward slashes and without "..": the path
    # relative to the root of the set, where the layout does not say otherwise
    category: str  # the kind of object or texture, such as "grid"
    defect: str  # the kind of defect, or "good"
    mask_path: Path | None  # absolute path of the mask, of a folder of masks that are united, or of
    # the annotation file; None for an image without any
    regions: AnnotatedImage | None = None  # what the annotation file says of the image

    @property
    def good(self) -> bool:
        """Whether the set says that the image has no defect."""
        return self.defect == GOOD


def is_good_name(name: str) -> bool:
    """Whether a folder or a label of this name stands for images without a defect."""
    return name.strip().lower() in GOOD_NAMES
