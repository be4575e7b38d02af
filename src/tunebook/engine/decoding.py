"""How the next token is chosen, and how likely it and its alternatives were.

Knows transformers' logits processors; knows no chat, no thread and no queue.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tunebook.engine.locks import unwrapped

ALTERNATIVES = 5


@dataclass(frozen=True)
class Token:
    """One token of an answer.

    Attributes:
        id: in the vocabulary.
        text: what it adds to the answer; empty for special tokens and unfinished characters.
        piece: the token as written by itself, special tokens too.
        probability: what the model gave it, before any sampling setting.
        chance: how likely the sampling settings made it; 1 at temperature 0.
        alternatives: the likeliest tokens at this place and their probabilities, best first; this
            one is among them if it is likely enough.
    """

    id: int
    text: str
    piece: str
    probability: float
    chance: float
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Choice:
    """What a token was chosen by, as numbers."""

    probability: float
    chance: float
    ids: list[int]
    probabilities: list[float]


class _Keep(LogitsProcessor):
    """Changes nothing and remembers what passed."""

    scores: torch.Tensor | None = None

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        self.scores = scores
        return scores


class Chooser:
    """The processors that apply the sampling settings, and what they chose from.

    Args:
        temperature: 0 takes the likeliest.
        top_p, top_k, min_p: 1, 0 and 0 leave every token.
        repetition_penalty: 1 changes nothing.
    """

    def __init__(
        self,
        *,
        temperature: float,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
    ) -> None:
        self.sampled = temperature > 0
        self._raw, self._final = _Keep(), _Keep()
        chain: list[LogitsProcessor] = [self._raw]
        if repetition_penalty != 1.0:
            chain.append(RepetitionPenaltyLogitsProcessor(float(repetition_penalty)))
        if self.sampled:  # in the order of transformers
            chain.append(TemperatureLogitsWarper(float(temperature)))
            if top_k:
                chain.append(TopKLogitsWarper(int(top_k)))
            if top_p < 1.0:
                chain.append(TopPLogitsWarper(float(top_p)))
            if min_p > 0.0:
                chain.append(MinPLogitsWarper(float(min_p)))
        self.processors = LogitsProcessorList([*chain, self._final])

    def choice(self, token: int) -> Choice:
        """How `token`, chosen from the scores that passed last, stood among the others."""
        raw, final = self._raw.scores, self._final.scores
        assert raw is not None
        assert final is not None
        before = torch.softmax(raw[0].float(), dim=-1)
        best = torch.topk(before, min(ALTERNATIVES, before.numel()))
        chance = (
            torch.softmax(final[0].float(), dim=-1)[token] if self.sampled else before.new_ones(())
        )
        numbers = torch.stack([before[token], chance, *best.values]).tolist()  # one transfer
        return Choice(numbers[0], numbers[1], best.indices.tolist(), numbers[2:])


def generation_config(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, room: int, *, sampled: bool
) -> Any:
    """The model's own generation config with our length and none of the settings of `Chooser`.

    Args:
        room: most new tokens.
    """
    config = copy.deepcopy(unwrapped(model).generation_config)
    ends = config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    ends = sorted(end for end in ends if end is not None)
    config.eos_token_id = ends or None
    config.pad_token_id = tokenizer.pad_token_id
    if config.pad_token_id is None and ends:
        config.pad_token_id = ends[0]
    config.max_new_tokens, config.max_length = room, None
    config.do_sample = sampled
    # neutral values: what is None here, generate() fills from the model's own config
    config.temperature = config.top_p = config.repetition_penalty = 1.0
    config.top_k = 0 if sampled else None
    config.min_p = 0.0 if sampled else None
    config.use_cache = True
    return config


def own_penalty(model: nn.Module) -> float:
    """The repetition penalty of the model's own settings."""
    return float(getattr(unwrapped(model).generation_config, "repetition_penalty", None) or 1.0)
