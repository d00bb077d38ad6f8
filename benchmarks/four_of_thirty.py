"""How easy four images of MVTec AD's grid are: the table of docs/comparison.md, from JSON files.

Command:
  python benchmarks/four_of_thirty.py

The four images data/textures has of grid (number 000 of bent, broken, glue and metal contamination)
are also among the thirty of data/mvtec_grid_128, there at 128 pixels and with MVTec AD's own masks.
So the same pictures can be scored with both kinds of masks, and four beside thirty with one kind.
AUROC / AUPRC of single images, mean over images (and over seeds where there are several); the JSON
files say how each was made (`ssdnet-evaluate --only_defective --evaluate_at=PIXELS` makes such
numbers).
"""

import json
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
FOUR = ("bent", "broken", "glue", "metal_contamination")
NATIVE, ENLARGED = "grid_128_native", "grid_128_upsampled_256"
# Name; method in the JSON files; those of the textures and of the 128-pixel images, at their own
# size and enlarged; the paper.
ROWS = (
    (
        "SR",
        "spectral_residual",
        "variants_textures_grid",
        f"variants_{NATIVE}",
        f"variants_{ENLARGED}",
        "0.97 / 0.45",
    ),
    (
        "SR at the picture's own size",
        "spectral_residual:width=None",
        "variants_textures_grid",
        f"variants_{NATIVE}",
        f"variants_{ENLARGED}",
        "-",
    ),
    (
        "PG-LSR",
        "pg_lsr",
        "variants_textures_grid",
        f"glcm_pg_lsr_{NATIVE}",
        f"glcm_pg_lsr_{ENLARGED}",
        "0.92 / 0.34",
    ),
    (
        "GLCM",
        "glcm",
        "variants_textures_grid",
        f"glcm_pg_lsr_{NATIVE}",
        f"glcm_pg_lsr_{ENLARGED}",
        "0.47 / 0.02",
    ),
    (
        "SSDnet, grid_literal / grid_128_literal",
        "ssdnet",
        "../grid_256",
        f"../{NATIVE}_patch8",
        f"../{ENLARGED}",
        "0.99 / 0.60",
    ),
    *(
        (name, method, "../fca_textures", f"../fca_{NATIVE}", f"../fca_{ENLARGED}", "-")
        for name, method in (
            ("FCA", "fca:border=published"),
            ("FCA, corrected border", "fca:border=corrected"),
        )
    ),
)


def main() -> None:
    print("| method | 4, hand masks | same 4, official | 30, official | 30, enlarged | paper, 57 |")
    print("|---|---|---|---|---|---|")
    for name, method, textures, native, enlarged, paper in ROWS:
        cells = [
            mean(rows(textures, method, four=True)),
            mean(rows(native, method, four=True)),
            mean(rows(native, method)),
            mean(rows(enlarged, method)),
        ]
        print(f"| {name} | {' | '.join(cells)} | {paper} |")


def rows(name: str, method: str, *, four: bool = False) -> list[dict]:
    """The images of a file, of grid and one method; all or the four."""
    report = json.loads((RESULTS / "comparison" / f"{name}.json").read_text())
    found = [r for r in report["images"] if r["category"] == "grid" and r["method"] == method]
    if four:
        paths = {f"grid/test/{defect}/000.png" for defect in FOUR}
        found = [row for row in found if row["path"] in paths]
        assert {row["path"] for row in found} == paths, name
    return found


def mean(images: list[dict]) -> str:
    """AUROC / AUPRC."""
    return " / ".join(f"{np.mean([i[m] for i in images]):.3f}" for m in ("auroc", "auprc"))


if __name__ == "__main__":
    main()
