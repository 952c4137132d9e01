"""One HTML page that needs nothing else, opened from the disk, and its charts as PNG files beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from capacity import whole_file
from capacity.errors import UserError
from capacity.plots import BLUE, INK, LINE, RED, SOFT

WIDE_INCHES, NARROW_INCHES = 10.0, 4.2
DOTS_PER_INCH = 120
STYLE = {
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.labelcolor": SOFT,
    "lines.linewidth": 1.3,
    "svg.fonttype": "none",  # text stays text: small, and of the page's colour
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
}


@dataclass(frozen=True)
class Chart:
    """name: of the PNG, after the page's; height: inches on a wide screen; draw: fills a figure."""

    name: str
    title: str
    caption: str
    height: float
    draw: Callable[[Figure], None]


@dataclass(frozen=True)
class Table:
    """rows: the first one is the head."""

    title: str
    rows: Sequence[Sequence[str]]


def write(
    path: Path,
    title: str,
    lead: Sequence[str],
    charts: Sequence[Chart],
    tables: Sequence[Table] = (),
    notes: Sequence[str] = (),
    listing: tuple[str, str] = ("", ""),
) -> list[Path]:
    """Write the page, and a PNG of each chart beside it; the files written. Raises UserError where that cannot be.

    notes: what the reader must know that the charts cannot show; listing: a title and a text shown as it is.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(
        title=title,
        lead=lead,
        tables=tables,
        notes=notes,
        listing_title=listing[0],
        listing=listing[1],
        charts=[
            {
                "title": chart.title,
                "caption": chart.caption,
                "wide": _svg(chart, WIDE_INCHES, chart.height),
                "narrow": _svg(chart, NARROW_INCHES, chart.height),
            }
            for chart in charts
        ],
    )
    files = {path: page.encode(errors="replace")}
    files |= {path.with_name(f"{path.stem}-{chart.name}.png"): _png(chart) for chart in charts}
    try:
        for file, content in files.items():
            whole_file.write(file, content)
    except UserError as error:
        raise UserError(f"--html {error}") from None
    return list(files)


def _figure(chart: Chart, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    chart.draw(figure)
    return figure


def _png(chart: Chart) -> bytes:
    with rc_context(STYLE):
        buffer = BytesIO()
        FigureCanvasAgg(_figure(chart, WIDE_INCHES, chart.height)).print_figure(buffer, dpi=DOTS_PER_INCH)
    return buffer.getvalue()


def _svg(chart: Chart, width: float, height: float) -> Markup:
    """The chart in the page's colours. The salt keeps the names inside apart from those of the page's other charts."""
    with rc_context(STYLE | {"svg.hashsalt": f"{chart.name} {width}"}):
        buffer = StringIO()
        figure = _figure(chart, width, height)
        figure.set_facecolor("none")
        for axes in figure.axes:
            axes.set_facecolor("none")
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # names that every chart has, and nothing refers to
    # A tenth of a point is finer than a screen.
    text = re.sub(r' d="[^"]*"', lambda path: " ".join(re.sub(r"(\.\d)\d+", r"\1", path[0]).split(" \n")), text)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    for colour, name in ((INK, "ink"), (SOFT, "soft"), (LINE, "line"), (BLUE, "blue"), (RED, "red")):
        text = text.replace(colour, f"var(--{name})")
    label = Markup.escape(chart.title)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))
