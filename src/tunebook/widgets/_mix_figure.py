"""The types of a dynamic quantization as a plotly figure: layers by classes of tensors.

Knows its report; knows no panel and no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunebook.export.gguf.report import Choice, DynamicReport

_FEWEST, _MOST = 2.0, 9.0  # bits a weight at the ends of the colours; 16 bits look like the last


def mix_figure(report: DynamicReport) -> Any:
    """A `plotly.graph_objects.Figure`: colour and name say the type, hovering why.

    Example:
        >>> mix_figure(DynamicReport.load("model-dynamic-Q4_K_M.json"))  # doctest: +SKIP
    """
    import plotly.graph_objects as go

    cells = {choice.place: choice for choice in report.tensors}
    columns = list(dict.fromkeys(role for _, role in cells))
    rows = sorted({layer for layer, _ in cells})
    grid = [[cells.get((layer, role)) for role in columns] for layer in rows]
    figure = go.Figure(
        go.Heatmap(
            x=columns,
            y=["all layers" if layer < 0 else f"layer {layer}" for layer in rows],
            z=[[choice.bits if choice else None for choice in row] for row in grid],
            text=[[choice.type if choice else "" for choice in row] for row in grid],
            customdata=[[_told(choice) if choice else "" for choice in row] for row in grid],
            texttemplate="%{text}",
            hovertemplate="%{y}, %{x}<br>%{customdata}<extra></extra>",
            colorscale="Viridis",
            zmin=_FEWEST,
            zmax=_MOST,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "bits a weight"}},
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(side="top")
    figure.update_layout(
        title_text=f"{report.name}: {report.bits:.2f} bits a weight",
        height=180 + 24 * len(rows),
        template="plotly_white",
        margin={"t": 110, "l": 80, "r": 16, "b": 24},
    )
    return figure


def _told(choice: Choice) -> str:
    """What the type costs, and what others would."""
    stock = f", llama.cpp's mix has {choice.stock_type}" if choice.stock_type else ""
    lines = [
        f"<b>{choice.type}</b>, {choice.bits:.2f} bits a weight{stock}",
        f"{choice.bytes:,} bytes, costs {choice.error:.1e} nats a token",
        choice.why,
    ]
    others = sorted(choice.errors.items(), key=lambda item: -item[1])
    lines += [f"as {kind}: {error:.1e}" for kind, error in others if kind != choice.type]
    return "<br>".join(lines)
