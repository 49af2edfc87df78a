"""From a specification to an image, without a browser and without the network."""

import json
import re
from pathlib import Path

import vl_convert

from pear_cli.errors import ConfigError, near
from pear_cli.report.charts.style import Spec

FORMATS = ("png", "svg", "pdf")
LINK = "https://row.invalid/"
"""Before a link to a place of the same page: the renderer would make a relative link absolute."""

PNG_SCALE = 3  # pixels of a file for each pixel of a chart: sharp on a slide
SIZE = re.compile(r'(?<=<svg)([^>]*?) width="([\d.]+)" height="[\d.]+"')
LARGEST = 1.3  # how much a chart may grow on a page: letters of all charts stay alike


def svg(spec: Spec) -> str:
    """An SVG element; every text of the data is escaped, and links go to the same page only."""
    return str(vl_convert.vegalite_to_svg(json.dumps(spec), allowed_base_urls=[])).replace(LINK, "")


def inline(spec: Spec) -> str:
    """An SVG element that takes the width that its surroundings give it, within limits."""
    return SIZE.sub(
        lambda found: f'{found[1]} style="max-width:{LARGEST * float(found[2]):.0f}px"', svg(spec), count=1
    )


def form_of(path: Path) -> str:
    """The format that the name of a file asks for.

    Raises:
        ConfigError: none that can be drawn.
    """
    form = path.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        raise ConfigError(
            f'--out {path}: no plot is drawn as "{form}"{near(form, FORMATS) or ";"} '
            f"end the name in {', '.join('.' + known for known in FORMATS)}"
        )
    return form


def image(spec: Spec, form: str) -> bytes:
    """The content of an image file."""
    text = json.dumps(spec)
    if form == "svg":
        return svg(spec).encode()
    if form == "pdf":
        return bytes(vl_convert.vegalite_to_pdf(text, allowed_base_urls=[]))
    return bytes(vl_convert.vegalite_to_png(text, scale=PNG_SCALE, allowed_base_urls=[]))
