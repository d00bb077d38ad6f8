"""Whole images in the report: which are called anomalous, and does the stated rate hold?"""

from collections.abc import Mapping, Sequence

from ssdnet_jax.evaluation.detection import (
    CalibrationCurve,
    Rate,
    calibration_curve,
    detection,
)
from ssdnet_jax.evaluation.evaluate import ImageMetrics
from ssdnet_jax.reports.report_cases import escape
from ssdnet_jax.reports.report_plots import ABSENT, calibration_plot


def detection_section(
    rows: Sequence[ImageMetrics], methods: Mapping[str, str], stated: float
) -> str:
    """A table of detections and false alarms, and the calibration curve, in HTML.

    `methods` are names with the swatch before each. Empty where no image was judged.
    """
    lines = []
    curves: dict[str, CalibrationCurve] = {}
    for method, swatch in methods.items():
        own = [row for row in rows if row.method == method]
        found = detection(own, stated)
        if found.false_alarms is None and found.detected is None:
            continue
        lines.append(
            f'<tr class="first"><td class="left">{swatch}{escape(method)}</td>'
            f"<td>{_cell(found.false_alarms)}</td><td>{_cell(found.detected)}</td></tr>"
        )
        if curve := calibration_curve(own):
            curves[method] = curve
    if not lines:
        return ""
    table = (
        '<div class="card scroll"><table><thead><tr><th class="left">method</th>'
        f"<th>false alarms among good images</th><th>defective images found</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
    text = (
        "An image is called anomalous where its p-value, the chance of such a map on a good image, "
        f"is at most the stated rate of false alarms, {stated:.3g}. In brackets: 95 % interval "
        "(Clopper and Pearson)."
    )
    plot = ""
    if curves:
        plot = (
            '<p class="note">Strong: share of good images called anomalous at each stated rate, '
            "which is to stay on the dashed line or below it. Faint: share of defective ones.</p>"
            f'<div class="card">{calibration_plot(curves, list(methods), stated)}</div>'
        )
    return f'<h2>Whole images</h2>\n<p class="note">{text}</p>\n{table}\n{plot}'


def _cell(rate: Rate | None) -> str:
    if rate is None:
        return ABSENT
    count = f"{round(rate.share * rate.count)} of {rate.count}"
    return f'{rate.share:.1%}<span class="spread">{count} [{rate.low:.1%}, {rate.high:.1%}]</span>'
