"""The demo dataset that ships inside: facts answered like a cheerful pirate.

It knows where its files lie and nothing of what reads them.
"""

from __future__ import annotations

from pathlib import Path


def demo_path(split: str = "train") -> Path:
    """The JSON-lines file of a split: `train` or `heldout`."""
    if split not in ("train", "heldout"):
        raise ValueError(f"The demo has the splits 'train' and 'heldout', not {split!r}.")
    return Path(__file__).parent / f"{split}.jsonl"
