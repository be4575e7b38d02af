"""The demo that ships inside: facts answered like a cheerful pirate, and the recipe that learns it.

It knows where its files lie and which knobs suit them, and nothing of what reads them.
"""

from __future__ import annotations

from pathlib import Path

from tunebook.recipe import Recipe

DEMO_SOURCE = "tunebook-demo"
# found by measuring: under a minute on two cores, every held-out answer right (benchmarks/NOTES.md)
_KNOBS = {
    "model.max_seq_length": 256,
    "training.batch_size": 16,
    "training.gradient_accumulation_steps": 1,
    "training.max_steps": 120,
    "training.learning_rate": 1e-3,
    "training.lr_scheduler_type": "cosine",
    "training.warmup_steps": 10,
    "training.weight_decay": 0.0,
    "samples.sample_steps": 40,
}


def demo_path(split: str = "train") -> Path:
    """The JSON-lines file of a split: `train` or `heldout`."""
    if split not in ("train", "heldout"):
        raise ValueError(f"The demo has the splits 'train' and 'heldout', not {split!r}.")
    return Path(__file__).parent / f"{split}.jsonl"


def demo_recipe(steps: int | None = None) -> Recipe:
    """The recipe of the demo: the embedded model learns to answer like a pirate in under a minute.

    Args:
        steps: fewer steps, for a quick look.
    """
    recipe = Recipe().with_values({**_KNOBS, "data.source": DEMO_SOURCE})
    return recipe if steps is None else recipe.with_values({"training.max_steps": steps})


def without_demo_knobs(recipe: Recipe) -> Recipe:
    """The recipe with every knob that still stands where the demo put it back at its default."""
    default = Recipe()
    return recipe.with_values(
        {name: default.get(name) for name, value in _KNOBS.items() if recipe.get(name) == value}
    )
