"""Proof that GGUF files are the model: read tensor by tensor, and run by llama.cpp where it is there.

Knows the live model and files; `tunebook.export.verify` calls it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.export.commands import is_projector
from tunebook.export.gguf.judge import LlamaServer, can_judge, other_ids
from tunebook.export.gguf.mixes import MIXES
from tunebook.export.gguf.projector import TYPES
from tunebook.export.gguf.showing import ANSWER, TOP, Place, Shown
from tunebook.export.gguf.writer import Content, content_of
from tunebook.export.gguf_header import read_gguf
from tunebook.export.processors import processor_of, words_of
from tunebook.export.verification import Verification, logits
from tunebook.models.vision import has_towers

if TYPE_CHECKING:
    import torch

# Mean divergence in nats and share of same choices that trained models keep at each type, with room:
# Llama 3 8B has 0.03 at Q4_K_M and 0.45 at Q2_K (llama.cpp's tools/perplexity/README.md).
_LIMITS = {
    **dict.fromkeys(("F32", "F16", "BF16"), (0.01, 0.98)),
    "Q8_0": (0.02, 0.95),
    "Q6_K": (0.05, 0.92),
    **dict.fromkeys(("Q5_K", "Q5_0", "Q5_1"), (0.1, 0.88)),
    **dict.fromkeys(("Q4_K", "Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS"), (0.3, 0.8)),
    "Q3_K": (0.8, 0.65),
    "Q2_K": (1.6, 0.4),
}
_READ: tuple[str, ...] = (
    "type and shape of every tensor",
    "weights",
    "vocabulary",
    "special tokens",
    "chat template",
)
_RUN = ("token ids of a battery of texts", "the prompt", "the next token and its probabilities")


def verify_files(
    files: Sequence[Path],
    model: Any,
    tokenizer: Any,
    conversations: Sequence[tuple[torch.Tensor, int]],
) -> Verification:
    """Compare GGUF files with the live model; of several the worst outcome.

    Args:
        files: of this model, in any types; of a model that sees, with its projector file.
        tokenizer: of a model that sees, its processor.
        conversations: ids, (1, length), and where the first compared logits are.

    Raises:
        FileInvalid: one is no GGUF file, damaged or cut off.
    """
    if has_towers(base := model.get_base_model() if hasattr(model, "peft_config") else model):
        tokenizer = processor_of(base, tokenizer)
    eyes = next((file for file in files if is_projector(file.name)), None)
    rest = [file for file in files if not is_projector(file.name)]
    outcomes = [_verified(file, eyes, model, tokenizer, conversations) for file in rest]
    worst = min(outcomes, key=lambda outcome: (outcome.ok, -outcome.divergence))
    if worst.tokens and len(rest) > 1:
        judge = f"{worst.judge}, the furthest of {len(rest)} files"
        return worst.model_copy(update={"judge": judge})
    return worst


def _verified(
    file: Path,
    eyes: Path | None,
    model: Any,
    tokenizer: Any,
    conversations: Sequence[tuple[torch.Tensor, int]],
) -> Verification:
    content = content_of(model, tokenizer)
    kinds = {tensor.name: tensor.type for tensor in read_gguf(file).tensors}
    # any type that is written will do; another one stands out as one that should be F32
    stored = [kind if (kind := kinds.get(t.name)) in _LIMITS else "F32" for t in content.tensors]
    wrong = [f"in {file.name} {problem}" for problem in content.differences(file, stored)]
    wrong += _eye_differences(content, eyes)
    least = max((_LIMITS[kind] for kind in stored), key=lambda limit: limit[0])
    limits: dict[str, Any] = {"largest_divergence": least[0], "least_agreement": least[1]}
    numbers = _numbers([])
    judge, compared = "Read again", _READ
    if can_judge() and not wrong:
        judge, compared = "Run by llama.cpp", (*_READ, *_RUN)
        longest = max(ids.shape[1] for ids, _ in conversations)
        shown = Shown.of(content, tokenizer) if content.projector is not None else None
        room = max(512, longest + 1, shown.tokens + ANSWER if shown else 0)
        threads = os.cpu_count() or 1
        with LlamaServer(file, context=room, threads=threads, projector=eyes) as server:
            wrong = [f"in {file.name} {it}" for it in _text_differences(server, tokenizer)]
            places = list(_places(server, model, conversations))
            if shown is not None:
                compared = (*compared, "a picture")
                places += shown.places(server, model)
            numbers = _numbers(places)
    return Verification(**numbers, **limits, problems=tuple(wrong), judge=judge, compared=compared)


def _eye_differences(content: Content, eyes: Path | None) -> list[str]:
    """What is wrong with the projector file of a model that sees."""
    if content.projector is None:
        return []
    if eyes is None:
        return ["the file with the vision tower is missing"]
    kinds = {tensor.name: tensor.type for tensor in read_gguf(eyes).tensors}
    stored = {mix: content.projector.kinds(MIXES[mix]) for mix in TYPES}
    named = [tensor.name for tensor in content.projector.tensors]
    written = [kinds.get(name) for name in named]
    mix = next((mix for mix, wanted in stored.items() if wanted == written), TYPES[0])
    found = content.projector.differences(eyes, MIXES[mix])
    return [f"in {eyes.name} {problem}" for problem in found]


def _text_differences(server: LlamaServer, processor: Any) -> list[str]:
    """Texts of the battery that llama.cpp gives other ids, and whether its prompt is another."""
    tokenizer = words_of(processor)
    wrong = [f"llama.cpp gives {case.text!r} other ids" for case, _ in other_ids(server, tokenizer)]
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": "Hello!"}]
        ours = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        start = tokenizer.bos_token or ""
        if server.prompt(messages).removeprefix(start) != ours.removeprefix(start):
            wrong.append("llama.cpp writes another prompt")
    return wrong


def _places(
    server: LlamaServer, model: Any, conversations: Sequence[tuple[torch.Tensor, int]]
) -> Iterator[Place]:
    """Both models at every token of what the live one said."""
    for ids, start in conversations:
        live = logits(model, ids, start).log_softmax(-1)
        said = ids[0].tolist()
        for place, true in enumerate(live, start + 1):
            yield true, server.next_token(said[:place], top=TOP)


def _numbers(places: Sequence[Place]) -> dict[str, Any]:
    """Over all places."""
    import torch

    same, divergences, largest = 0, [], 0.0
    for true, told in places:
        there = torch.tensor(list(told))
        theirs = torch.tensor(list(told.values()))
        same += int(true.argmax()) == int(there[theirs.argmax()])
        gap = true[there] - theirs
        divergences.append(float((true[there].exp() * gap).sum()))
        largest = max(largest, float(gap[theirs > theirs.max() - 5].abs().max()))
    mean = sum(divergences) / max(1, len(divergences))
    return {
        "tokens": len(divergences),
        "same_choice": same,
        "max_difference": largest,
        "divergence": max(0.0, mean),
    }
