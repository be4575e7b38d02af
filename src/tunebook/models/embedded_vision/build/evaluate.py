"""How well the model reads formulas that it never saw: exact match and edit distance.

Knows batches and texts; it knows no training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer

from tunebook.latex.scores import Score, score
from tunebook.models.embedded_vision.build.batched import Prompt, read
from tunebook.models.embedded_vision.build.batches import Shelf
from tunebook.models.embedded_vision.build.tokenizer import END, token_id


def answers(
    model: Any,
    shelf: Shelf,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    count: int,
) -> list[tuple[str, str]]:
    """Greedy answer and truth for the first `count` pictures of the test split, one prompt a size."""
    numbers = shelf.test[:count]
    sizes = shelf.cells(numbers)
    end = token_id(tokenizer, END)
    longest = int(shelf.lengths.max()) + 4
    pairs = []
    different = torch.unique(sizes, dim=0)
    for at, size in enumerate(different.tolist()):
        part = numbers[(sizes == sizes.new_tensor(size)).all(dim=1)]
        batch = shelf.batch(part, (size[0], size[1]))
        prompt = prompts[at % len(prompts)]
        device = part.device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            said = read(model, batch.patches, batch.grid, prompt, end, longest)
        texts = tokenizer.decode_batch(said, skip_special_tokens=True)
        truths = [shelf.formulas[number] for number in part.tolist()]
        pairs += list(zip(texts, truths, strict=True))
    return pairs


def by_length(
    pairs: Sequence[tuple[str, str]], limits: Sequence[int] = (8, 16, 24, 100)
) -> dict[str, Score]:
    """Scores apart for formulas of up to so many tokens."""
    scores, low = {}, 0
    for limit in limits:
        chosen = [pair for pair in pairs if low < len(pair[1].split()) <= limit]
        scores[f"{low + 1}-{limit}"] = score(chosen)
        low = limit
    return scores
