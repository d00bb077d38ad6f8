"""How easy four images of MVTec AD's grid are: the table of docs/comparison.md, from JSON files.

Command:
  python benchmarks/four_of_thirty.py

The four images data/textures has of grid (number 000 of bent, broken, glue and metal contamination)
are also among the thirty of data/mvtec_grid_128, there at 128 pixels and with MVTec AD's own masks.
So the same pictures can be scored with both kinds of masks, and four beside thirty with one kind.
AUROC / AUPRC of single images, mean over images (and over seeds where there are several); the JSON
files of benchmarks/quality.py say how each was made.
"""

import json
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
FOUR = ("bent", "broken", "glue", "metal_contamination")
# Name; method in the JSON files; the file of the textures; of the 128-pixel images; the paper.
ROWS = (
    ("SR", "spectral_residual", "variants_textures_grid", "variants_grid_128", "0.97 / 0.45"),
    (
        "SR at the picture's own size",
        "spectral_residual:width=None",
        "variants_textures_grid",
        "variants_grid_128",
        "-",
    ),
    ("PG-LSR", "pg_lsr", "variants_textures_grid", "glcm_pg_lsr_grid_128", "0.92 / 0.34"),
    ("GLCM", "glcm", "variants_textures_grid", "glcm_pg_lsr_grid_128", "0.47 / 0.02"),
    ("FCA", "fca:border=published", "../fca_textures", "../fca_grid_128", "-"),
    ("FCA, corrected border", "fca:border=corrected", "../fca_textures", "../fca_grid_128", "-"),
)


def main() -> None:
    print("| method | 4, hand masks | same 4, official | 30, official | 30, enlarged | paper, 57 |")
    print("|---|---|---|---|---|---|")
    for name, method, textures, grid_128, paper in ROWS:
        cells = [
            mean(rows(textures, method, four=True)),
            mean(rows(f"{grid_128}_native", method, four=True)),
            mean(rows(f"{grid_128}_native", method)),
            mean(rows(f"{grid_128}_upsampled_256", method)),
        ]
        print(f"| {name} | {' | '.join(cells)} | {paper} |")


def rows(name: str, method: str, *, four: bool = False) -> list[dict]:
    """The images of a file, of grid and one method; all or the four."""
    report = json.loads((RESULTS / "comparison" / f"{name}.json").read_text())
    found = [r for r in report["images"] if r["category"] == "grid" and r["method"] == method]
    if four:
        paths = {f"grid/test/{defect}/000.png" for defect in FOUR}
        found = [row for row in found if row["path"] in paths]
        assert len(found) == len(FOUR), name
    return found


def mean(images: list[dict]) -> str:
    """AUROC / AUPRC."""
    return " / ".join(f"{np.mean([i[m] for i in images]):.3f}" for m in ("auroc", "auprc"))


if __name__ == "__main__":
    main()
