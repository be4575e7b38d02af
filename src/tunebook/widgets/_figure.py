"""The finished run as a plotly figure: loss above, memory below, one step axis.

Knows the folded view of a run; knows no panel.
"""

from __future__ import annotations

from typing import Any

from tunebook.training.view import RunView

_LOSS, _SMOOTH, _EVAL, _MEMORY = "#9ec5fe", "#0b5fce", "#b3541e", "#1a7f64"


def run_figure(view: RunView, *, title: str = "", forecast: int = 0) -> Any:
    """A `plotly.graph_objects.Figure` of one run.

    Args:
        forecast: bytes that the plan foretold; 0 draws no line.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    steps = [step for step, _, _ in view.losses()]
    loss = [value for _, value, _ in view.losses()]
    smooth = [value for _, _, value in view.losses()]
    for name, curve, color in (("loss", loss, _LOSS), ("smoothed", smooth, _SMOOTH)):
        figure.add_trace(
            go.Scatter(x=steps, y=curve, name=name, line={"color": color}), row=1, col=1
        )
    if view.evaluations():
        at, values = zip(*view.evaluations(), strict=True)
        marks = go.Scatter(
            x=at, y=values, name="evaluation", mode="markers+lines", line={"color": _EVAL}
        )
        figure.add_trace(marks, row=1, col=1)
    for index, name, dash in ((1, "memory now", "solid"), (2, "memory peak", "dot")):
        line = {"color": _MEMORY, "dash": dash}
        x = [row[0] for row in view.memory()]
        y = [row[index] / 2**20 for row in view.memory()]
        figure.add_trace(go.Scatter(x=x, y=y, name=name, line=line), row=2, col=1)
    if forecast:
        limit = {"line_dash": "dash", "annotation_text": "forecast"}
        figure.add_hline(y=forecast / 2**20, row=2, col=1, **limit)
    figure.update_yaxes(title_text="loss (nats)", row=1, col=1)
    figure.update_yaxes(title_text="memory (MiB)", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text="step", row=2, col=1)
    figure.update_layout(title_text=title, height=520, template="plotly_white", margin={"t": 50})
    return figure
