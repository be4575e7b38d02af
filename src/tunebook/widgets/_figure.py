"""Runs as plotly figures that stay in the notebook: one run with its memory, or several compared.

Knows curves; knows no panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunebook.curves import MOST_POINTS, Curves, Thinning, smooth

_PALE = "#9dc1ec"
COLORS = ("#1666c5", "#c2410c", "#0f8a66", "#6b5bb5")
DASHES = ("solid", "dash", "dot", "dashdot")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def run_figure(
    curves: Curves,
    *,
    title: str = "",
    forecast: int = 0,
    error: float = 0.0,
    smoothing: float = 0.9,
) -> Any:
    """A `plotly.graph_objects.Figure` of one run: loss above, memory below, one step axis.

    Args:
        forecast: bytes that the plan foretold, with `error` as a share around it; 0 draws nothing.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.68, 0.32]
    )
    steps, memory = curves.steps, curves.memory
    drawn = curves.points("steps", "loss")
    smoothed = smooth(steps["loss"], smoothing)
    x = [int(steps["step"][at]) for at in drawn]
    loss = [float(steps["loss"][at]) for at in drawn]
    figure.add_trace(_line(x, loss, "loss", _PALE, width=1), row=1, col=1)
    means = [smoothed[at] for at in drawn]
    figure.add_trace(_line(x, means, "smoothed", COLORS[0]), row=1, col=1)
    if len(curves.evaluations):
        at, values = curves.evaluations["step"].tolist(), curves.evaluations["loss"].tolist()
        marks = _line(at, values, "evaluation", COLORS[1])
        marks.mode = "lines+markers"
        figure.add_trace(marks, row=1, col=1)
    rows = curves.points("memory", "allocated")
    at = memory["step"][rows].tolist()
    for name, column, dash in (
        ("memory now", "allocated", "solid"),
        ("memory peak", "peak", "dash"),
    ):
        gib = (memory[column][rows] / 2**30).tolist()
        color = COLORS[2] if column == "allocated" else COLORS[3]
        figure.add_trace(_line(at, gib, name, color, dash=dash), row=2, col=1)
    if forecast:
        low, high = (forecast * (1 + sign * error) / 2**30 for sign in (-1, 1))
        figure.add_hrect(
            y0=low, y1=high, fillcolor="#8a5a00", opacity=0.12, line_width=0, row=2, col=1
        )
        figure.add_hline(
            y=forecast / 2**30, line_dash="dash", line_color="#8a5a00", line_width=1,
            annotation_text="forecast", row=2, col=1,
        )  # fmt: skip
    figure.update_yaxes(title_text="loss (nats)", row=1, col=1)
    figure.update_yaxes(title_text="memory (GiB)", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text="step", row=2, col=1)
    return _styled(figure, title, height=520)


def compared_figure(
    curves: Sequence[Curves], names: Sequence[str], *, smoothing: float = 0.9, log: bool = False
) -> Any:
    """The smoothed losses of several runs in one `plotly.graph_objects.Figure`, with evaluations."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, (each, name) in enumerate(zip(curves, names, strict=True)):
        color, dash = COLORS[number % 4], DASHES[number // 4 % 4]
        steps = each.steps["step"]
        losses = smooth(each.steps["loss"], smoothing)
        rows = Thinning(MOST_POINTS // 2).rows(each.steps["loss"])
        y = [losses[at] for at in rows]
        figure.add_trace(_line(steps[rows].tolist(), y, name, color, dash=dash))
        if len(each.evaluations):
            at, values = each.evaluations["step"].tolist(), each.evaluations["loss"].tolist()
            marks = _line(at, values, f"{name}, evaluation", color, dash="dot", width=1)
            marks.mode = "lines+markers"
            figure.add_trace(marks)
    figure.update_xaxes(title_text="step")
    figure.update_yaxes(title_text="loss (nats), smoothed", type="log" if log else "linear")
    return _styled(figure, "", height=420)


def _line(
    x: list[Any], y: list[Any], name: str, color: str, *, dash: str = "solid", width: float = 2
) -> Any:
    import plotly.graph_objects as go

    return go.Scatter(
        x=x, y=y, name=name, mode="lines", line={"color": color, "dash": dash, "width": width}
    )


def _styled(figure: Any, title: str, *, height: int) -> Any:
    figure.update_layout(
        title_text=title,
        height=height,
        template="plotly_white",
        font={"family": _FONT, "size": 12},
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        margin={"t": 60, "l": 60, "r": 16, "b": 44},
    )
    return figure
