"""The panels: anywidget views that edit a Recipe or watch a Run, and the Guide over all of them.

What a panel can do, Python can do with the same names; nothing here knows tensors, and importing
this package imports neither torch nor transformers.
"""

from __future__ import annotations

from tunebook.widgets._forecasting import ForecastBar, forecast
from tunebook.widgets._mix_figure import mix_figure
from tunebook.widgets.chat import TryPanel
from tunebook.widgets.comparing import Comparison, compare
from tunebook.widgets.data import DataPanel, preview
from tunebook.widgets.guide import Guide
from tunebook.widgets.method import MethodPanel
from tunebook.widgets.model import ModelPanel
from tunebook.widgets.takeaway import TakeAwayPanel
from tunebook.widgets.train import TrainPanel, watch

__all__ = [
    "Comparison",
    "DataPanel",
    "ForecastBar",
    "Guide",
    "MethodPanel",
    "ModelPanel",
    "TakeAwayPanel",
    "TrainPanel",
    "TryPanel",
    "compare",
    "forecast",
    "mix_figure",
    "preview",
    "watch",
]
