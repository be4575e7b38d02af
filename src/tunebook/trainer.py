"""The names of trainers and collators that tutorials know: a thin face without logic of its own."""

from __future__ import annotations

from tunebook.compat import SFTConfig, SFTTrainer, TrainingArguments
from tunebook.data.vision_collator import VisionDataCollator

__all__ = [
    "SFTConfig",
    "SFTTrainer",
    "TrainingArguments",
    "UnslothVisionDataCollator",
    "VisionDataCollator",
]

UnslothVisionDataCollator = VisionDataCollator
