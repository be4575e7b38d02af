"""The embedded model and its training loop: a small Llama, from nothing, on packed rows.

It knows token ids and nothing of what they say.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

# The 16 levels of 4-bit NormalFloat (QLoRA, arXiv 2305.14314, appendix E).
NF4 = (
    -1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
)  # fmt: skip


@dataclass(frozen=True)
class Ids:
    """The special tokens that the loss must tell apart."""

    pad: int
    bos: int
    system: int
    user: int
    assistant: int
    end: int


@dataclass(frozen=True)
class Schedule:
    """How long and how hard to train. `max_seconds` bends the schedule to a time limit."""

    steps: int
    rows: int
    lr: float = 2e-3
    warmup: int = 200
    max_seconds: float = math.inf
    quantised_from: float = 0.5


def new_model(ids: Ids, seed: int, layers: int = 6) -> LlamaForCausalLM:
    """A fresh model of 5.2 million parameters; every matrix row is a multiple of 256 long."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=ids.bos,
        eos_token_id=ids.end,
        pad_token_id=ids.pad,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        bos_token_id=ids.bos,
        eos_token_id=ids.end,
        pad_token_id=ids.pad,
        max_new_tokens=256,
    )
    return model


def loss_weights(rows: Tensor, ids: Ids) -> Tensor:
    """How much each target counts: answers 1, running text 0.5, questions 0.2, padding 0.

    `rows` is [batch, length]; the result is [batch, length - 1], for targets `rows[:, 1:]`.
    """
    marks = (rows == ids.bos) | (rows == ids.system) | (rows == ids.user) | (rows == ids.assistant)
    places = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
    last_mark = torch.where(marks, places, 0).cummax(dim=1).values
    speaker = rows.gather(1, last_mark)
    weights = torch.full(rows.shape, 0.5, device=rows.device)
    weights[speaker == ids.assistant] = 1.0
    weights[(speaker == ids.user) | (speaker == ids.system) | marks] = 0.2
    before, target = rows[:, :-1], rows[:, 1:]
    padding = (target == ids.pad) & ((before == ids.pad) | (before == ids.end))
    return weights[:, 1:].masked_fill(padding, 0.0)


def fake_nf4(weight: Tensor) -> Tensor:
    """The matrix as NF4 with blocks of 64 would give it back."""
    levels = torch.tensor(NF4, device=weight.device)
    blocks = weight.reshape(-1, 64)
    absmax = blocks.abs().amax(dim=1, keepdim=True).clamp_min(1e-8)
    nearest = torch.bucketize(blocks / absmax, (levels[1:] + levels[:-1]) / 2)
    return (levels[nearest] * absmax).reshape(weight.shape)


@contextmanager
def rounded_to_nf4(model: LlamaForCausalLM) -> Iterator[None]:
    """Run with the layers' matrices rounded, so that the model learns to live with it."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    kept = [p.detach().clone() for p in matrices]
    with torch.no_grad():
        for parameter in matrices:
            parameter.copy_(fake_nf4(parameter))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(matrices, kept, strict=True):
                parameter.copy_(value)


def _optimizer(model: LlamaForCausalLM, lr: float) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    norms = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)


def weighted_loss(model: LlamaForCausalLM, rows: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of the next token, by weight."""
    hidden_states = model.model(input_ids=rows[:, :-1], use_cache=False).last_hidden_state
    logits = model.lm_head(hidden_states).float()
    losses = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
    flat = weights.flatten()
    return (losses * flat).sum() / flat.sum()


def train(
    model: LlamaForCausalLM,
    rows: Tensor,
    ids: Ids,
    schedule: Schedule,
    seed: int,
    log: Callable[[str], None],
    compiled: bool = False,
) -> dict[str, float]:
    """Train in place on `rows` ([count, length], on the device); returns what it took."""
    device = rows.device
    cuda = device.type == "cuda"
    optimizer = _optimizer(model, schedule.lr)
    loss_of = torch.compile(weighted_loss) if compiled else weighted_loss
    generator = torch.Generator(device="cpu").manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator).to(device)
    start, place, step, progress, shown = time.monotonic(), 0, 0, 0.0, math.nan
    while progress < 1.0:
        if place + schedule.rows > len(rows):
            order, place = torch.randperm(len(rows), generator=generator).to(device), 0
        batch = rows[order[place : place + schedule.rows]].long()
        place += schedule.rows
        rate = min(1.0, (step + 1) / schedule.warmup) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr * rate
        weights = loss_weights(batch, ids)
        rounded = progress >= schedule.quantised_from and step % 2 == 1
        with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
            if rounded:
                with rounded_to_nf4(model):
                    loss = loss_of(model, batch, weights)
                    torch.autograd.backward(loss)
            else:
                loss = loss_of(model, batch, weights)
                torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 100 == 0 or step == schedule.steps:
            shown = loss.item()
        seconds = time.monotonic() - start
        progress = max(step / schedule.steps, seconds / schedule.max_seconds)
        if step % 100 == 0 or progress >= 1.0:
            log(f"step {step} loss {shown:.4f} {'nf4 ' if rounded else ''}{seconds:.0f} s")
    tokens = step * schedule.rows * rows.shape[1]
    return {"steps": step, "tokens": tokens, "seconds": seconds, "final_loss": shown}
