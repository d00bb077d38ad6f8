"""Regions that are not to be judged, as `--ignore` names them: masks, GeoJSON or COCO polygons.

Coordinates of polygons are (x, y) in pixels from the upper left corner of the image, as in
`data.shapes`; in GeoJSON (RFC 7946) a polygon's first ring is its outline and others are holes.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ssdnet_jax.data.datasets import missing_masks
from ssdnet_jax.data.images import DecodedImage, read_mask
from ssdnet_jax.data.json_values import parse_json
from ssdnet_jax.data.shapes import Shape, as_polygon, is_coco_file, rasterize, read_coco
from ssdnet_jax.errors import InputError

Region = Callable[[tuple[int, int]], np.ndarray]  # (height, width) -> bool mask of that size

POLYGON_SUFFIXES = (".json", ".geojson")
_IMAGE_FIELDS = ("image", "file_name", "filename", "path")  # of a feature's properties


@dataclasses.dataclass(frozen=True)
class _Ring:
    """A closed line of a polygon."""

    points: np.ndarray  # float64 (n, 2), x and y
    hole: bool


def ignored_regions(path: str | os.PathLike[str], relatives: Iterable[Path]) -> dict[Path, Region]:
    """Which region of each image is not to be judged; images without one are left out.

    Args:
      path: a mask that holds for all images (not 0, such as white, is ignored); a folder of masks
        under the images' relative names; a COCO file, by whose `file_name` images have
        annotations; or a GeoJSON file. GeoJSON features whose properties name an image (`image`,
        `file_name`, `filename` or `path`) are of that image, others of all.
      relatives: paths of the images.

    Raises:
      InputError: there is no such file or folder, it cannot be read, or it names none of the
        images.
    """
    path, relatives = Path(path), list(relatives)
    if not is_polygon_file(path):
        masks = missing_masks(path, relatives)
        return {relative: functools.partial(_mask, mask) for relative, mask in masks.items()}
    if is_coco_file(path):
        by_name = {name: image.shapes for name, image in read_coco(path).items()}
        of_image = _matched(path, by_name, relatives)
        return {
            relative: functools.partial(_rasterized, path, by_name[name])
            for relative, name in of_image.items()
            if by_name[name]
        }
    of_all, rings = _read_geojson(path)
    of_image = _matched(path, rings, relatives) if rings else {}
    found = {relative: [*of_all, *rings[name]] for relative, name in of_image.items()}
    if of_all:
        found |= {relative: of_all for relative in relatives if relative not in found}
    return {relative: functools.partial(_filled, polygons) for relative, polygons in found.items()}


def region_masks(path: str | os.PathLike[str], relatives: Iterable[Path]) -> dict[Path, Path]:
    """The mask files that `ignored_regions` reads when an image is read; none of polygons."""
    path = Path(path)
    return {} if is_polygon_file(path) else missing_masks(path, relatives)


def is_polygon_file(path: Path) -> bool:
    """Whether regions are polygons of one file, which are read at once."""
    return path.suffix.lower() in POLYGON_SUFFIXES and not path.is_dir()


def with_region(image: DecodedImage, region: Region | None) -> DecodedImage:
    """The image with a region more that is not to be judged."""
    if region is None:
        return image
    ignored = region(image.pixels.shape[:2])
    if image.ignored is not None:
        ignored = ignored | image.ignored
    return dataclasses.replace(image, ignored=ignored if ignored.any() else None)


def _mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    return read_mask(path, shape=size)


def _rasterized(path: Path, shapes: Sequence[Shape], size: tuple[int, int]) -> np.ndarray:
    try:
        return rasterize(shapes, size)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _filled(polygons: Sequence[Sequence[_Ring]], size: tuple[int, int]) -> np.ndarray:
    """The union of polygons with holes."""
    mask = np.zeros(size, bool)
    for rings in polygons:
        inside, holes = (
            rasterize([Shape("", polygons=tuple(as_polygon(ring.points) for ring in part))], size)
            for part in ([ring for ring in rings if ring.hole == hole] for hole in (False, True))
        )
        mask |= inside & ~holes
    return mask


def _matched(path: Path, names: Mapping[str, Any], relatives: Sequence[Path]) -> dict[Path, str]:
    """The name by which the file knows each image: its relative path, or the file's name alone."""
    found = {}
    plain: dict[str, list[str]] = {}
    for name in names:
        plain.setdefault(PurePosixPath(name).name, []).append(name)
    for relative in relatives:
        if (whole := relative.as_posix()) in names:
            found[relative] = whole
        elif len(same := plain.get(relative.name, [])) == 1:
            found[relative] = same[0]
    if not found:
        raise InputError(
            f"{path}: found no region of an image; expected one of {relatives[0].as_posix()}, for "
            f"example, found one of {next(iter(names), 'none')}"
        )
    return found


def _read_geojson(
    path: Path,
) -> tuple[list[list[_Ring]], dict[str, list[list[_Ring]]]]:
    """Polygons of all images, and of those that features name."""
    try:
        found = parse_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected polygons or masks") from None
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: found no JSON ({reason}); expected GeoJSON or COCO") from None
    of_all: list[list[_Ring]] = []
    of_image: dict[str, list[list[_Ring]]] = {}
    for name, geometry in _geometries(path, found):
        polygons = _polygons(path, geometry)
        if name is None:
            of_all += polygons
        else:
            of_image.setdefault(PurePosixPath(name.replace("\\", "/")).as_posix(), []).extend(
                polygons
            )
    if not of_all and not of_image:
        raise InputError(f"{path}: found no polygon; expected GeoJSON or COCO with some")
    return of_all, of_image


def _geometries(path: Path, found: Any) -> Iterator[tuple[str | None, Any]]:
    """Names of images, or None, and geometries."""
    kind = found.get("type") if isinstance(found, dict) else None
    if kind == "FeatureCollection" and isinstance(found.get("features"), list):
        for feature in found["features"]:
            yield from _geometries(path, feature)
    elif kind == "Feature":
        properties = found.get("properties")
        fields = properties if isinstance(properties, dict) else {}
        names = [fields[f] for f in _IMAGE_FIELDS if isinstance(fields.get(f), str) and fields[f]]
        yield (names[0] if names else None), found.get("geometry")
    elif kind in ("Polygon", "MultiPolygon"):
        yield None, found
    else:
        raise InputError(
            f"{path}: found {kind or type(found).__name__}; expected GeoJSON (a FeatureCollection, "
            f"a Feature or a Polygon) or COCO"
        )


def _polygons(path: Path, geometry: Any) -> list[list[_Ring]]:
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise InputError(
            f"{path}: found a geometry of type {kind}; expected Polygon or MultiPolygon"
        )
    written = geometry.get("coordinates")
    polygons = [written] if kind == "Polygon" else written
    try:
        return [
            [_Ring(_points(ring), hole=number > 0) for number, ring in enumerate(polygon)]
            for polygon in polygons
        ]
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{path}: found a {kind} that is not made of rings of at least three points [x, y] of "
            f"finite numbers; expected rings as in RFC 7946"
        ) from None


def _points(ring: Any) -> np.ndarray:
    points = np.array([[float(x), float(y)] for x, y, *_ in ring])
    if len(points) < 3 or not np.isfinite(points).all() or np.abs(points).max() > 2**20:
        raise ValueError
    return points
