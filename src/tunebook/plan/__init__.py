"""What a recipe will cost on this hardware, and how it will be run: arithmetic, without torch.

This layer knows shapes, bytes and FLOPs; it knows no weights, no tensors and no dataset's content.
"""

from tunebook.plan.forecast import make_forecast
from tunebook.plan.hardware import Hardware
from tunebook.plan.nouns import DataSize, Forecast, Level, Plan, Strategy
from tunebook.plan.strategy import make_plan, parse_budget, require_fit, step_down

__all__ = [
    "DataSize",
    "Forecast",
    "Hardware",
    "Level",
    "Plan",
    "Strategy",
    "make_forecast",
    "make_plan",
    "parse_budget",
    "require_fit",
    "step_down",
]
