"""What costs are of, where their names do not tell."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from pear_cli.report.terminal import layout

LEGEND = {
    "network_params": "network_params: as the network runs: backbone, adapters and classifier",
    "macs_per_image": (
        "macs_per_image, latency_p50_ms, latency_p95_ms: of one image, with adapters beside the weights"
    ),
    "whole_macs_per_image": (
        "whole_…: before channels were pruned; latency_1_…, latency_64_…: of 1 or 64 images at once, with "
        "adapters merged into the weights, as in whole_macs_per_image"
    ),
    "speedup_theoretical": (
        "speedup_theoretical: of multiply-accumulates, merged before and after pruning; speedup_1, "
        "speedup_64: of the median latencies"
    ),
}
"""A line by the first cost that needs it."""


def lines(costs: Mapping[str, Any], width: int | None, indent: int) -> list[Text]:
    """The lines that `costs` need, wrapped to `width` cells."""
    said = [line for name, line in LEGEND.items() if name in costs]
    across = None if width is None else width - indent
    return [Text(" " * indent + part, "dim") for line in said for part in layout.wrapped(line, across)]
