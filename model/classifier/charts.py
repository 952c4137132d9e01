"""The report's charts as inline SVG: their colours are the page's, so that they follow its light and dark."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 22, 32, 42
HISTOGRAM = 64
MARKED_POINTS = 60


def percent(share: float, digits: int = 0) -> str:
    """0.5 as "50 %"; the space does not break."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def line_chart(
    series: Mapping[str, Sequence[float]], kept: int, *, highest: float, unit: str, shares: bool = False
) -> Markup:
    """One line for each name over the epochs 1, 2, ..., from 0 to `highest`; `kept` is the epoch marked.

    shares: values in 0..1, shown as percentages. The lines take the page's classes s1, s2, ... in the series' order.
    """
    epochs = range(1, 1 + max(map(len, series.values())))
    frame = _Frame(x=(1, max(2, len(epochs))), y=(0, highest))
    inner = (WIDTH - LEFT + 4, HEIGHT - TOP - BOTTOM + 8)
    lines = [
        *frame.grid(MaxNLocator(8, integer=True), MaxNLocator(5), percent if shares else "{:g}".format),
        *frame.names("epoch", unit),
        f'<path class="kept" d="M{frame.x(kept):.1f},{TOP}V{HEIGHT - BOTTOM}"/>',
        f'<text x="{frame.x(kept):.1f}" y="{TOP - 7}" text-anchor="{_anchor(kept, len(epochs))}">kept: {kept}</text>',
        # A first epoch's spike leaves the frame instead of pressing the rest flat.
        f'<svg x="{LEFT - 4}" y="{TOP - 4}" width="{inner[0]}" height="{inner[1]}" '
        f'viewBox="{LEFT - 4} {TOP - 4} {inner[0]} {inner[1]}">',
    ]
    for number, (name, values) in enumerate(series.items(), start=1):
        points = [(frame.x(epoch), frame.y(value)) for epoch, value in zip(epochs, values, strict=True)]
        lines.append(f'<polyline class="s{number}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        radius = 3 if len(points) <= MARKED_POINTS else 1.5
        for epoch, value, (x, y) in zip(epochs, values, points, strict=True):
            said = percent(value) if shares else f"{value:.4f} {unit}"
            title = f"<title>epoch {epoch}, {name}: {said}</title>"
            lines.append(f'<circle class="s{number}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{title}</circle>')
    ends = ", ".join(f"{name} from {values[0]:.3g} to {values[-1]:.3g}" for name, values in series.items())
    return _svg([*lines, "</svg>"], HEIGHT, f"{unit} over {len(epochs)} epochs, of which {kept} was kept: {ends}")


def reliability_diagram(calibration: Mapping) -> Markup:
    """Accuracy of each bin of confidence beside the confidence itself, and below it how many pictures the bin has."""
    frame = _Frame(x=(0, 1), y=(0, 1))
    bins = [part for part in calibration["bins"] if part["pictures"]]
    most = max(part["pictures"] for part in bins)
    bottom = HEIGHT + HISTOGRAM
    lines = [*frame.grid(MaxNLocator(5), MaxNLocator(5), percent), *frame.names("confidence", "accuracy")]
    for part in bins:
        left, width = frame.x(part["from"]) + 0.5, frame.x(part["to"]) - frame.x(part["from"]) - 1
        accuracy, confidence = frame.y(part["accuracy"]), frame.y(part["confidence"])
        title = (
            f"<title>{part['pictures']:,} pictures, confidence {percent(part['confidence'])}, "
            f"accuracy {percent(part['accuracy'])}</title>"
        )
        tall = max(1, part["pictures"] / most * (HISTOGRAM - 24))
        across = f'x="{left:.1f}" width="{width:.1f}"'
        lines += [
            f'<g><rect class="s1" {across} y="{max(accuracy, confidence):.1f}" '
            f'height="{frame.y(0) - max(accuracy, confidence):.1f}"/>',
            f'<rect class="gap" {across} y="{min(accuracy, confidence):.1f}" '
            f'height="{abs(accuracy - confidence):.1f}"/>',
            f'<path class="level" d="M{left:.1f},{accuracy:.1f}h{width:.1f}"/>',
            f'<rect class="count" {across} y="{bottom - tall:.1f}" height="{tall:.1f}"/>{title}</g>',
        ]
    lines.append(f'<path class="kept" d="M{frame.x(0)},{frame.y(0)}L{frame.x(1)},{frame.y(1)}"/>')
    lines.append(f'<text x="{LEFT}" y="{HEIGHT + 14}">pictures: up to {most:,} in a bar</text>')
    error = percent(calibration["expected_calibration_error"], 1)
    return _svg(lines, bottom, f"Accuracy by confidence in {len(bins)} bins; expected calibration error {error}")


class _Frame:
    """The axes: from figures to places in the drawing."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]):
        self._x, self._y = x, y

    def x(self, value: float) -> float:
        low, high = self._x
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self._y
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def grid(self, across: MaxNLocator, up: MaxNLocator, shown) -> list[str]:
        lines = []
        for value in _ticks(up, self._y):
            y = self.y(value)
            lines.append(f'<path class="grid" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>')
            lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{shown(value)}</text>')
        for value in _ticks(across, self._x):
            text = f"{value:g}" if self._x[1] > 1 else shown(value)
            lines.append(f'<text x="{self.x(value):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{text}</text>')
        return lines

    def names(self, across: str, up: str) -> list[str]:
        return [
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{across}</text>',
            f'<text x="4" y="{TOP - 15}">{up}</text>',
        ]


def _ticks(locator: MaxNLocator, limits: tuple[float, float]) -> list[float]:
    low, high = limits
    return [value for value in locator.tick_values(low, high) if low <= value <= high * (1 + 1e-9)]


def _anchor(place: int, last: int) -> str:
    return "start" if place < 0.15 * last else "end" if place > 0.9 * last else "middle"


def _svg(lines: list[str], height: int, description: str) -> Markup:
    start = f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{description}">'
    return Markup("\n".join([start, *lines, "</svg>"]))
