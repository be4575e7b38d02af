"""A loss curve as inline SVG, for the static view of a run. Pure; knows numbers and no run.

Lines are of a middle tone and text takes the page's colour, so that it reads on light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

WIDTH, HEIGHT = 640, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 8, 24
_LOSS, _SMOOTH, _EVAL = "#9dc1ec", "#2f7fd6", "#c2410c"
_MOST = 500  # points of a line; more cannot be seen at this width

Point = tuple[float, float]


def loss_svg(
    losses: Sequence[tuple[float, float, float]], evaluations: Sequence[Point] = ()
) -> str:
    """The picture, or nothing if no loss is a number.

    Args:
        losses: step, loss, smoothed loss.
        evaluations: step, loss.
    """
    raw = _finite([(step, loss) for step, loss, _ in losses])
    smooth = _finite([(step, value) for step, _, value in losses])
    marks = _finite(evaluations)
    shown = [*raw, *smooth, *marks]
    if not raw:
        return ""
    frame = _Frame(shown)
    words = f"Loss over {len(losses)} steps, from {raw[0][1]:.3g} to {raw[-1][1]:.3g}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{words}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" style="width:100%;max-width:{WIDTH}px;color:inherit">',
        *frame.axes(),
        frame.line(raw, _LOSS, 1),
        frame.line(smooth, _SMOOTH, 2),
        frame.line(marks, _EVAL, 2),
        *(frame.dot(point, _EVAL) for point in marks),
        "</svg>",
    ]
    return "".join(parts)


class _Frame:
    """Where steps and losses are in the picture."""

    def __init__(self, points: Sequence[Point]) -> None:
        steps, values = [p[0] for p in points], [p[1] for p in points]
        self.first, self.last = min(steps), max(steps)
        low, high = min(values), max(values)
        room = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
        self.low, self.high = (max(0.0, low - room) if low >= 0 else low - room), high + room

    def place(self, point: Point) -> Point:
        """Pixels of a step and a loss."""
        across = (point[0] - self.first) / ((self.last - self.first) or 1)
        up = (point[1] - self.low) / (self.high - self.low)
        x = _LEFT + across * (WIDTH - _LEFT - _RIGHT)
        y = HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)
        return x, y

    def line(self, points: Sequence[Point], color: str, width: int) -> str:
        """A line through the points, thinned to what can be seen."""
        if not points:
            return ""
        stride = math.ceil(len(points) / _MOST)
        kept = [*points[::stride], points[-1]]
        where = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self.place, kept))
        return f'<polyline points="{where}" fill="none" stroke="{color}" stroke-width="{width}"/>'

    def dot(self, point: Point, color: str) -> str:
        """A mark at a point."""
        x, y = self.place(point)
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>'

    def axes(self) -> list[str]:
        """Three losses at the left, first and last step below."""
        style = 'font-size="11" font-family="sans-serif" fill="currentColor" opacity=".8"'
        parts = []
        for value in (self.low, (self.low + self.high) / 2, self.high):
            _, y = self.place((self.first, value))
            parts.append(
                f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                f'stroke="currentColor" opacity=".15"/>'
                f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" {style}>{value:.3g}</text>'
            )
        for step, anchor in ((self.first, "start"), (self.last, "end")):
            x, _ = self.place((step, self.low))
            parts.append(
                f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}" {style}>'
                f"step {step:.0f}</text>"
            )
        return parts


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(float(x), float(y)) for x, y in points if math.isfinite(y)]
