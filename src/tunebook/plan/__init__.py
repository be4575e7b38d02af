"""What a recipe will cost on this hardware, and how it will be run: arithmetic, without torch.

This layer knows shapes, bytes and FLOPs; it knows no weights, no tensors and no dataset's content.
"""

from tunebook.plan.forecast import make_forecast
from tunebook.plan.hardware import Hardware
from tunebook.plan.nouns import DataSize, Forecast, Level, Plan, Strategy
from tunebook.plan.presets import PRESETS, preset_changes
from tunebook.plan.rungs import StrategyLadder, describe_ladder
from tunebook.plan.strategy import budget_text, make_plan, parse_budget, require_fit, step_down

__all__ = [
    "PRESETS",
    "DataSize",
    "Forecast",
    "Hardware",
    "Level",
    "Plan",
    "Strategy",
    "StrategyLadder",
    "budget_text",
    "describe_ladder",
    "make_forecast",
    "make_plan",
    "parse_budget",
    "preset_changes",
    "require_fit",
    "step_down",
]
