"""Tunebook as a peer: planned, loaded, patched, checked and trained as a run of a user is.

Knows tunebook's own order of calls (see `tunebook.training.worker`); knows no clock and no table.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from speed.models import RANK, SEED, TARGETS
from speed.peers import Rows, learn_all, timed

_PROBE = 64  # tokens that the patched model is checked on


class Tunebook:
    """Our engine; `cap` is the budget of the next trainer in bytes, None for all that is free."""

    def __init__(self, folder: Path, longest: int) -> None:
        self.seconds: dict[str, float] = {}
        with timed(self.seconds, "import"):
            from tunebook.models.adapters import add_lora
            from tunebook.models.loading import (
                default_device,
                load_model,
                load_shape,
                load_tokenizer,
            )
            from tunebook.plan import Hardware
            from tunebook.training.sft import make_trainer

        self.recipe = _recipe(folder)
        self.hardware = Hardware.detect()  # before the weights take their share
        self.shape = load_shape(self.recipe.model)
        self.tokenizer = load_tokenizer(self.recipe.model)
        with timed(self.seconds, "load"):
            model = load_model(self.recipe.model, self.recipe.quantization, device=default_device())
        model.config.use_cache = False
        with timed(self.seconds, "adapt"):
            self.model: Any = add_lora(model, self.recipe.lora, seed=SEED)
            self.swaps = _patch(self.model)
        self.make_trainer = make_trainer
        self.cap: int | None = None
        self.plan: Any = None

    def trainer(self, batch: int, rows: Rows, steps: int, folder: Path, callback: Any) -> Any:
        """A trainer over these rows, with memory spent as the plan says."""
        from tunebook.plan import DataSize, make_plan

        length = len(rows[0])
        recipe = self.recipe.with_values(
            {
                "training.batch_size": batch,
                "training.max_steps": steps,
                "training.memory_budget": "auto" if self.cap is None else f"{self.cap}B",
                "model.max_seq_length": length,
            }
        )
        data = DataSize(rows=len(rows), mean_length=length, max_length=length)
        self.plan = make_plan(recipe, shape=self.shape, hardware=self.hardware, data=data)
        strategy = _spend(self.model, self.plan.strategy, free=self.cap is None)
        return self.make_trainer(
            recipe,
            strategy,
            self.model,
            self.tokenizer,
            learn_all(rows),
            None,
            output_dir=folder,
            callbacks=[callback],
        )

    def facts(self, trainer: Any) -> dict[str, Any]:
        """What else a reader of the figures wants to know: the plan, what was patched, the graphs."""
        graphs = trainer._graphs
        return {
            "graphs": "off" if graphs is None else graphs.failure or "replayed",
            "cap": self.cap,
            "forecast": self.plan.forecast.total,
            "fits": self.plan.fits,
            "strategy": self.plan.strategy.model_dump(mode="json"),
            "swapped": len(self.swaps.swapped),
            "left": sorted({f"{kind}: {reason}" for _, kind, reason in self.swaps.left}),
        }


def _recipe(folder: Path) -> Any:
    from tunebook.recipe import Recipe

    return Recipe.of(
        model=str(folder),
        **{
            "lora.r": RANK,
            "lora.alpha": RANK,
            "lora.target_modules": TARGETS,
            "training.gradient_accumulation_steps": 1,
            "training.learning_rate": 2e-4,
            "training.lr_scheduler_type": "constant",
            "training.warmup_steps": 0,
            "training.save_steps": 10**6,  # never
            "training.seed": SEED,
        },
    )


def _patch(model: Any) -> Any:
    """Patch and check as a run does; without a GPU the plain-torch kernels serve."""
    import torch

    from tunebook.engine import audit_gradients, patch_checked

    ids = torch.arange(_PROBE, device=model.device)[None]
    where: Any = "auto" if model.device.type == "cuda" else "any"
    swaps = patch_checked(model, ids, ids, device=where)
    audit_gradients(model, {"input_ids": ids, "labels": ids})
    return swaps


def _spend(model: Any, strategy: Any, *, free: bool) -> Any:
    """Run the layers as the strategy says, or, where the planner knows no layers yet, at an extreme."""
    if find_spec("tunebook.training.spend") is not None:
        from tunebook.training.spend import apply_strategy

        apply_strategy(model, strategy)
        return strategy
    from tunebook.engine import LayerMemory, fused_layers, spend
    from tunebook.engine.decoder import ALL, NOTHING

    layers = fused_layers(model)
    if not layers:
        return strategy
    spend(model, [LayerMemory(ALL if free else NOTHING, resident=free)] * len(layers))
    return strategy.model_copy(update={"gradient_checkpointing": False})
