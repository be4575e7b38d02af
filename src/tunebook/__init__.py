"""Tunebook: guided, fast, small-memory fine-tuning inside a notebook.

The public names. Each is loaded when it is first used, so that `import tunebook` does not import
torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "Recipe": "recipe",
    "recipe_fields": "fields",
    "Plan": "plan",
    "Hardware": "plan",
    "make_plan": "plan",
    "forecast": "widgets",
    "Run": "training",
    "train": "training",
    "open_run": "training",
    "list_runs": "training",
    "EventLog": "events",
    "TunebookError": "errors",
    "check": "data",
    "inspect_file": "export",
    "demo_recipe": "data.demo",
    "preview": "widgets",
    "watch": "widgets",
    "compare": "widgets",
    "Guide": "widgets",
    "ModelPanel": "widgets",
    "DataPanel": "widgets",
    "MethodPanel": "widgets",
    "TrainPanel": "widgets",
    "TryPanel": "widgets",
    "TakeAwayPanel": "widgets",
    "FastLanguageModel": "compat",
    "FastModel": "compat",
    "FastVisionModel": "compat",
    "SFTConfig": "compat",
    "SFTTrainer": "compat",
    "TrainingArguments": "compat",
    "VisionDataCollator": "data",
    "is_bf16_supported": "compat",
    "is_bfloat16_supported": "compat",
}

__all__ = ["__version__", *_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'tunebook' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tunebook.{_NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from tunebook.compat import (
        FastLanguageModel as FastLanguageModel,
        FastModel as FastModel,
        FastVisionModel as FastVisionModel,
        SFTConfig as SFTConfig,
        SFTTrainer as SFTTrainer,
        TrainingArguments as TrainingArguments,
        is_bf16_supported as is_bf16_supported,
        is_bfloat16_supported as is_bfloat16_supported,
    )
    from tunebook.data import VisionDataCollator as VisionDataCollator, check as check
    from tunebook.data.demo import demo_recipe as demo_recipe
    from tunebook.errors import TunebookError as TunebookError
    from tunebook.events import EventLog as EventLog
    from tunebook.export import inspect_file as inspect_file
    from tunebook.fields import recipe_fields as recipe_fields
    from tunebook.plan import Hardware as Hardware, Plan as Plan, make_plan as make_plan
    from tunebook.recipe import Recipe as Recipe
    from tunebook.training import (
        Run as Run,
        list_runs as list_runs,
        open_run as open_run,
        train as train,
    )
    from tunebook.widgets import (
        DataPanel as DataPanel,
        Guide as Guide,
        MethodPanel as MethodPanel,
        ModelPanel as ModelPanel,
        TakeAwayPanel as TakeAwayPanel,
        TrainPanel as TrainPanel,
        TryPanel as TryPanel,
        compare as compare,
        forecast as forecast,
        preview as preview,
        watch as watch,
    )
