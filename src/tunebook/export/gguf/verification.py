"""Proof that GGUF files are the model: read tensor by tensor, and run by llama.cpp where it is there.

Knows the live model and files; `tunebook.export.verify` calls it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tunebook.engine import model_lock, plain_forwards
from tunebook.export.commands import is_projector
from tunebook.export.gguf.divergence import Replaced
from tunebook.export.gguf.judge import LlamaServer, can_judge, other_ids
from tunebook.export.gguf.mixes import MIXES
from tunebook.export.gguf.projector import TYPES
from tunebook.export.gguf.showing import ANSWER, TOP, Shown
from tunebook.export.gguf.stored import stored_weights
from tunebook.export.gguf.writer import Content, content_of
from tunebook.export.gguf_header import read_gguf
from tunebook.export.processors import processor_of, words_of
from tunebook.export.verification import Verification, logits
from tunebook.models.vision import has_towers

# Mean divergence in nats that trained models usually keep at each type, with room, and the share of
# same choices: Llama 3 8B has 0.03 at Q4_K_M and 0.45 at Q2_K (llama.cpp's tools/perplexity/README.md).
# Only files in 16 bit have to: how far rounding takes a model is no fault of the file.
_USUAL = {
    **dict.fromkeys(("F32", "F16", "BF16"), (0.01, 0.98)),
    "Q8_0": (0.02, 0.95),
    "Q6_K": (0.05, 0.92),
    **dict.fromkeys(("Q5_K", "Q5_0", "Q5_1"), (0.1, 0.88)),
    **dict.fromkeys(("Q4_K", "Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS"), (0.3, 0.8)),
    "Q3_K": (0.8, 0.65),
    "Q2_K": (1.6, 0.4),
}
# Most of what llama.cpp may be apart from the live model with the file's own weights, in nats on
# average, whatever the types: it rounds activations too, 0.0007 apart at most in random models of the
# families, and 0.017 where that sends tokens to other experts.
_APART, _APART_EXPERTS = 0.01, 0.08
_READ: tuple[str, ...] = (
    "type and shape of every tensor",
    "weights",
    "vocabulary",
    "special tokens",
    "chat template",
)
_RUN = ("token ids of a battery of texts", "the prompt", "the next token and its probabilities")


_Place = tuple[torch.Tensor, torch.Tensor, dict[int, float]]
"""Where all were asked for the next token: log-probabilities of the live model, of the live model with
the file's weights, and llama.cpp's."""


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
    stored = [kind if (kind := kinds.get(t.name)) in _USUAL else "F32" for t in content.tensors]
    wrong = [f"in {file.name} {problem}" for problem in content.differences(file, stored)]
    wrong += _eye_differences(content, eyes)
    least = max((_USUAL[kind] for kind in stored), key=lambda limit: limit[0])
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
            replaced = Replaced(model, content.tensors, stored_weights(file, content.tensors))
            asked = [_asked(server, model, replaced, conversations)]
            if shown is not None:
                compared = (*compared, "a picture")
                asked.append(_shown(server, model, replaced, shown))
            numbers = _numbers(asked)
        stacked = any(len(tensor.shape) == 3 for tensor in content.tensors)
        most = _APART_EXPERTS if stacked else _APART
        if not (apart := numbers["apart"]) < most:  # true of no number too
            wrong.append(
                f"in {file.name} llama.cpp computes otherwise: {apart:.2g} nats apart on average "
                "from the model with the file's own weights"
            )
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


def _asked(
    server: LlamaServer,
    model: Any,
    replaced: Replaced,
    conversations: Sequence[tuple[torch.Tensor, int]],
) -> Iterator[_Place]:
    """All three at every token of what the live model said."""
    for ids, start in conversations:
        live = logits(model, ids, start).log_softmax(-1)
        with model_lock(model), plain_forwards(model), replaced.applied():
            stored = logits(model, ids, start).log_softmax(-1)
        said = ids[0].tolist()
        for place, (true, own) in enumerate(zip(live, stored, strict=True), start + 1):
            yield true, own, server.next_token(said[:place], top=TOP)


def _shown(server: LlamaServer, model: Any, replaced: Replaced, shown: Shown) -> Iterator[_Place]:
    """All three at every token of llama.cpp's answer to a picture."""
    answer = shown.answer(server)
    live = shown.log_probabilities(model, answer)
    with model_lock(model), plain_forwards(model), replaced.applied():
        stored = shown.log_probabilities(model, answer)
    told = (likely for _, likely in answer)
    return zip(live, stored, told, strict=False)


def _numbers(asked: Iterable[Iterable[_Place]]) -> dict[str, Any]:
    """Over all places; `apart` is that of the question on which llama.cpp is furthest."""
    same, divergences, furthest, largest = 0, [], 0.0, 0.0
    for places in asked:
        apart = []
        for true, own, told in places:
            there = torch.tensor(list(told))
            theirs = torch.tensor(list(told.values()))
            same += int(true.argmax()) == int(there[theirs.argmax()])
            gap = true[there] - theirs
            divergences.append(_divergence(true[there], theirs))
            apart.append(_divergence(own[there], theirs))
            largest = max(largest, float(gap[theirs > theirs.max() - 5].abs().max()))
        mean = sum(apart) / max(1, len(apart))
        furthest = mean if not mean <= furthest else furthest  # no number stays one
    return {
        "tokens": len(divergences),
        "same_choice": same,
        "max_difference": largest,
        "divergence": sum(divergences) / max(1, len(divergences)),
        "apart": furthest,
    }


def _divergence(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Of the probabilities of some tokens and of all others together, in nats, from their logarithms."""
    p, q = (
        torch.cat([x, (1 - x.sum()).clamp(min=1e-9)[None]])
        for x in (ours.double().exp(), theirs.double().exp())
    )
    return max(0.0, float((p * (p / q).log()).sum()))
