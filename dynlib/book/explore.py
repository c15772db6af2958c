"""Explorers: charts with sliders, declared in Altair, that work offline, by keyboard, and as a picture without scripts.

A notebook or a page without our scripts shows the picture. On the built site `book/_static/explore.js` puts the live
chart in its place; Vega, which draws it, lies beside that file as `vega.js`, fetched only where a page has an explorer.
"""

import base64
import io
import json
from dataclasses import dataclass
from html import escape

import altair as alt
import numpy as np
from numpy.typing import ArrayLike

from dynlib.errors import InputError

WIDTH = 290  # px of a panel: two beside each other in the text, one on a phone
INK = "currentColor"  # of the page, light or dark
QUIET = {"labelColor": INK, "titleColor": INK, "domainColor": INK, "tickColor": INK, "grid": False, "tickCount": 5}
STYLE = {
    "background": None,
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": QUIET | {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
    "legend": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "orient": "bottom", "titleLimit": 0},
    "title": {"color": INK, "fontSize": 13, "fontWeight": "normal", "anchor": "start"},
    "text": {"color": INK, "fontSize": 12},
    "rule": {"color": INK},
}


@dataclass(frozen=True)
class Explorer:
    """A chart with what is read instead of it, what stands under it, and an id to link to."""

    chart: alt.TopLevelMixin
    alt: str
    caption: str
    label: str

    def _repr_html_(self) -> str:
        import vl_convert  # half a second to start: only where something is drawn

        spec = self.chart.to_dict() | {"config": STYLE}
        spec.pop("$schema")
        drawn = vl_convert.vegalite_to_svg(spec, vl_version="6.4")
        packed = base64.b64encode(drawn.encode()).decode()
        told = json.dumps(spec, separators=(",", ":")).replace("<", "\\u003c")
        return (
            f'<figure class="explorer" id="{escape(self.label)}">'
            f'<div class="chart"><img src="data:image/svg+xml;base64,{packed}" alt="{escape(self.alt)}"></div>'
            f'<script type="application/json">{told}</script>'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )


def panels(*charts: alt.Chart | alt.LayerChart, **params: alt.Parameter) -> alt.ConcatChart:
    """Charts side by side that share `params`, the sliders; a narrow page puts them below each other."""
    return alt.concat(*charts, columns=2, spacing=24).add_params(*params.values()).resolve_scale(color="independent")


def slider(name: str, words: str, start: float, low: float, high: float, step: float) -> alt.Parameter:
    """A native range input: `name` in expressions, `words` before it."""
    return alt.param(name, value=start, bind=alt.binding_range(min=low, max=high, step=step, name=f"{words} "))


def data_url(picture: ArrayLike, kind: str = "PNG") -> str:
    """A picture (H, W, 3) or (H, W), uint8 or floats in [0, 1], as an address that holds it. Kind: PNG or WEBP.

    Raises InputError for another shape.
    """
    from PIL import Image

    array = np.asarray(picture)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise InputError(f"a picture has the shape {array.shape}; give (H, W) or (H, W, 3)")
    if array.dtype != np.uint8:
        array = np.round(255 * array.clip(0, 1)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, quality=90)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def vega() -> str:
    """The scripts that draw the charts, in one file: Vega, Vega-Lite and Vega-Embed (BSD-3), as vl-convert has them."""
    import vl_convert

    bundle = vl_convert.javascript_bundle(vl_version="6.4")
    return f"(() => {{\n{bundle}\n}})();\n"  # its names are its own: Sphinx has a `_`, too
