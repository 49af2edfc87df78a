"""Calibration: how often a prediction is right, by how sure the model is of it."""

from pear_cli.report.analysis.predictions import Calibration
from pear_cli.report.charts.style import SAID, WIDTH, Palette, Spec, field, percent, values

HEIGHT = 230


def reliability(calibration: Calibration, palette: Palette) -> Spec | None:
    """Accuracy by confidence; colour: how many images; on the dashed diagonal it is calibrated.

    Returns:
        None where there are no predictions.
    """
    filled = [one for one in calibration.bins if one.images]
    if not filled:
        return None
    most = max(one.images for one in filled)
    records = [
        {
            "low": percent(one.low),
            "high": percent(one.high),
            "accuracy": percent(one.accuracy),
            "share": one.images / most,
            "said": f"confidence {percent(one.confidence):.1f} %: accuracy {percent(one.accuracy):.1f} % "
            f"of {one.images} images",
        }
        for one in filled
    ]
    whole = {"domain": [0, 100], "nice": False}
    axis = {"values": list(range(0, 101, 25))}
    x = field("low", "Q", "confidence, %", scale=whole, axis={**axis, "grid": False})
    y = field("accuracy", "Q", "accuracy, %", scale=whole, axis=axis)
    shade = field("share", "Q", scale={"domain": [0, 1], "range": [0.25, 0.95]}, legend=None)
    bar: Spec = {"type": "rect", "color": palette.accent, "stroke": palette.accent, "strokeWidth": 1}
    diagonal: Spec = {"type": "line", "strokeDash": [4, 3], "color": palette.muted, "strokeWidth": 1.5}
    corners = values([{"low": 0, "accuracy": 0}, {"low": 100, "accuracy": 100}])
    return {
        "width": WIDTH - 60,
        "height": HEIGHT,
        "layer": [
            {"data": values(records), "mark": bar, "encoding": {
                "x": x, "x2": {"field": "high"}, "y": y, "y2": {"datum": 0}, "fillOpacity": shade,
                **SAID}},
            {"data": corners, "mark": {**diagonal, "aria": False}, "encoding": {"x": x, "y": y}},
        ],
    }  # fmt: skip
