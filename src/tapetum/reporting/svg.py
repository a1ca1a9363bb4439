"""Small drawings as inline SVG; the page's style sheet colours them, so that they adapt to light and dark mode."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from tapetum.evaluation.review import Floats

WIDTH, HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 12, 40

Curve = tuple[Sequence[float] | Floats, Sequence[float] | Floats]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Choose round numbers between two ends.

    Example:
        >>> ticks(0, 104)
        [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - rough))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


class Frame:
    """Axes, which give each pair of numbers a place in the drawing."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x, self.y = x, y

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)

    def grid(self, x_name: str, y_name: str) -> str:
        """Draw the lines, numbers and names of both axes."""
        parts = []
        for value in ticks(*self.y):
            _, y = self.place(self.x[0], value)
            parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,g}</text>')
        for value in ticks(*self.x):
            if x_name == "step" and value % 1:
                continue  # there are no half steps
            x, _ = self.place(value, self.y[0])
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{value:,g}</text>')
        middle = (WIDTH + _LEFT - _RIGHT) / 2
        parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>')
        parts.append(
            f'<text class="axis" transform="translate(12 {(HEIGHT - _BOTTOM + _TOP) / 2}) rotate(-90)" '
            f'text-anchor="middle">{escape(y_name)}</text>'
        )
        return "".join(parts)


def drawing(content: str, label: str, width: int = WIDTH, height: int = HEIGHT) -> Markup:
    """Make a whole SVG that scales with the page; `label` describes it to people who cannot see it."""
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{content}</svg>')


def curves(named: Mapping[str, Curve], y_name: str, label: str, y_range: tuple[float, float] | None = None) -> Markup:
    """Draw lines over steps; short ones have a dot at each point."""
    xs = [float(x) for steps, _ in named.values() for x in steps]
    ys = [float(y) for _, values in named.values() for y in values]
    frame = Frame((0.0, max(xs)), y_range or (min(ys), max(ys)))
    parts = [frame.grid("step", y_name)]
    for i, (steps, values) in enumerate(named.values()):
        places = [frame.place(float(x), float(y)) for x, y in zip(steps, values)]
        if len(places) < 12:
            parts += [f'<circle class="dot c{i}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in places]
        if len(places) > 1:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            parts.append(f'<path class="line c{i}" d="M{path}"/>')
    return drawing("".join(parts), label)


def reliability(points: Sequence[tuple[float, float, float, float, int]], label: str) -> Markup:
    """Draw bins from confidence, share correct, both ends of its interval (all in percent) and number of images."""
    frame = Frame((0.0, 100.0), (0.0, 100.0))
    (x0, y0), (x1, y1) = frame.place(0, 0), frame.place(100, 100)
    parts = [frame.grid("confidence, %", "correct, %"), f'<path class="ideal" d="M{x0} {y0}L{x1} {y1}"/>']
    for confidence, share, low, high, count in points:
        x, y = frame.place(confidence, share)
        bottom, top = frame.place(0, low)[1], frame.place(0, high)[1]
        parts.append(f'<path class="line c0" d="M{x:.1f} {bottom:.1f}V{top:.1f}"/>')
        parts.append(
            f'<circle class="dot c0" cx="{x:.1f}" cy="{y:.1f}" r="5">'
            f"<title>{count:,} images: confidence {confidence:.0f}%, correct {share:.0f}%</title></circle>"
        )
    return drawing("".join(parts), label)


def scatter(places: Sequence[tuple[float, float]], colours: Sequence[int], ringed: Sequence[bool]) -> str:
    """Draw dots at places of the drawing; dots of labelled images have a ring."""
    order = sorted(range(len(places)), key=lambda i: ringed[i])  # rings on top
    return "".join(
        f'<circle class="p{colours[i]}{" ringed" if ringed[i] else ""}" cx="{places[i][0]:.1f}" '
        f'cy="{places[i][1]:.1f}" r="{5 if ringed[i] else 3.5}"/>'
        for i in order
    )
