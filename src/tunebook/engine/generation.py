"""Talks with a model: streams an answer as it is made, from any thread, even during training.

Knows tokenizers, `generate` and PEFT models; knows no run and no panel.
"""

from __future__ import annotations

import copy
import queue
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from tunebook.engine.locks import ModelLock, model_lock, unwrapped
from tunebook.engine.state import own_randomness, same_modes
from tunebook.engine.streaming import Deltas
from tunebook.errors import ConversationTooLong, RowInvalid, TemplateInvalid, as_tunebook_error

Message = Mapping[str, Any]

_POLL = 0.1  # seconds between looks at the stop event while a training step holds the model


def stream_chat(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    messages: str | Sequence[Message],
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_p: float = 1.0,
    adapter: bool = True,
    stop: threading.Event | None = None,
    seed: int | None = None,
) -> Iterator[str]:
    """The answer, piece by piece, as the model makes it.

    Waits for a training step in progress, works in evaluation mode with a cache, and leaves the
    model's modes and torch's random state as they were. Closing the iterator stops the model.

    Args:
        model: a causal language model, with or without LoRA.
        tokenizer: with a chat template.
        messages: `[{"role": "user", "content": "..."}, ...]`, or the user's words alone.
        max_new_tokens: most tokens of the answer; less if the model's context ends before.
        temperature: 0 always takes the likeliest token; higher is more varied.
        top_p: keep the likeliest tokens that together have this probability.
        adapter: False answers as the model did before fine-tuning.
        stop: set it from anywhere to end the answer after the next token.
        seed: of the sampling; None draws a new one.

    Raises:
        RowInvalid: there is no message. TemplateInvalid: the chat template is missing or fails.
        ConversationTooLong: no room is left for an answer.
        TunebookError: whatever the model raised while it was generating.
    """
    prompt = encode_messages(tokenizer, messages)
    config = _generation_config(
        model, tokenizer, prompt.shape[1], max_new_tokens, temperature, top_p
    )
    job = _Job(model, tokenizer, prompt, config, adapter=adapter, seed=seed, stop=stop)
    return job.deltas()


def answer(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    messages: str | Sequence[Message],
    **sampling: Any,
) -> str:
    """The whole answer at once; arguments and errors as in `stream_chat`."""
    return "".join(stream_chat(model, tokenizer, messages, **sampling))


def answer_ids(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    *,
    max_new_tokens: int = 64,
) -> str:
    """The likeliest answer to a prompt that is token ids already; errors as in `stream_chat`."""
    config = _generation_config(model, tokenizer, len(ids), max_new_tokens, 0.0, 1.0)
    prompt = torch.tensor([list(ids)])
    job = _Job(model, tokenizer, prompt, config, adapter=True, seed=0, stop=None)
    return "".join(job.deltas())


def for_inference(model: nn.Module) -> nn.Module:
    """Evaluation mode with a cache, until `for_training`; recomputation rests in that mode."""
    with model_lock(model):
        model.eval()
        _set_use_cache(model, True)
    return model


def for_training(model: nn.Module) -> nn.Module:
    """Training mode without a cache."""
    with model_lock(model):
        model.train()
        _set_use_cache(model, False)
    return model


def _set_use_cache(model: nn.Module, value: bool) -> None:
    config: Any = getattr(unwrapped(model), "config", None)
    if hasattr(config, "use_cache"):
        config.use_cache = value


def encode_messages(
    tokenizer: PreTrainedTokenizerBase, messages: str | Sequence[Message]
) -> torch.Tensor:
    """The prompt's ids, (1, length), ending where the assistant is to speak; errors as `stream_chat`."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not messages:
        raise RowInvalid(
            "There is nothing to answer.", "the list of messages is empty.", "add a user message."
        )
    if not tokenizer.chat_template:
        raise TemplateInvalid(
            "The model cannot be talked to.",
            "its tokenizer has no chat template, so turns cannot be written as text.",
            "set `chat_template` in the recipe's model part.",
        )
    try:
        encoded: Any = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
    except Exception as error:  # jinja and the template's own raise_exception
        raise TemplateInvalid(
            "The chat template cannot write this conversation.",
            f"{type(error).__name__}: {error}",
            "check roles and their order: usually user and assistant in turn.",
        ) from error
    ids: torch.Tensor = encoded["input_ids"]
    return ids


def _generation_config(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
) -> Any:
    """The model's own generation config with our arguments, its end tokens and the tokenizer's."""
    inner: Any = unwrapped(model)
    context = getattr(inner.config, "max_position_embeddings", None)
    room = max_new_tokens if context is None else min(max_new_tokens, context - length)
    if room < 1:
        raise ConversationTooLong(
            "The conversation leaves no room for an answer.",
            f"it has {length} tokens and the model reads {context}; {max_new_tokens} were asked.",
            "shorten it, leave out early turns, or ask for at least one token.",
        )
    config = copy.deepcopy(inner.generation_config)
    ends = config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    ends = sorted(end for end in ends if end is not None)
    config.eos_token_id = ends or None
    config.pad_token_id = tokenizer.pad_token_id
    if config.pad_token_id is None and ends:
        config.pad_token_id = ends[0]
    config.max_new_tokens, config.max_length = room, None
    config.do_sample = temperature > 0
    config.temperature = temperature if temperature > 0 else None
    config.top_p = top_p if temperature > 0 else None
    config.top_k = 0 if temperature > 0 else None
    config.use_cache = True
    return config


class _Job:
    """One answer: a thread that generates, a queue, and the thread that reads it."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        prompt: torch.Tensor,
        config: Any,
        *,
        adapter: bool,
        seed: int | None,
        stop: threading.Event | None,
    ) -> None:
        self.model: Any = model
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.config = config
        self.adapter = adapter
        self.seed = secrets.randbits(63) if seed is None else seed
        self.stop = stop
        self.closed = threading.Event()
        self.queue: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()

    @property
    def stopping(self) -> bool:
        """Whether someone asked to end."""
        return self.closed.is_set() or (self.stop is not None and self.stop.is_set())

    def deltas(self) -> Iterator[str]:
        """Start the thread and yield its text; runs in the reader's thread."""
        # A trainer's callback may answer while its own thread holds the lock: it lends it then.
        lock = model_lock(self.model)
        worker = threading.Thread(
            target=self._work,
            args=(None if lock.held else lock,),
            name="tunebook-chat",
            daemon=True,
        )
        worker.start()
        try:
            while (item := self.queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise as_tunebook_error(item, during="answer") from item
                yield item
        finally:
            self.closed.set()
            worker.join()

    def _work(self, lock: ModelLock | None) -> None:
        try:
            while lock is not None and not lock.acquire(timeout=_POLL):
                if self.stopping:
                    return
            try:
                if not self.stopping:
                    self._generate()
            finally:
                if lock is not None:
                    lock.release()
        except BaseException as error:
            self.queue.put(error)
        finally:
            self.queue.put(None)

    def _generate(self) -> None:
        device = self.model.get_input_embeddings().weight.device
        prompt = self.prompt.to(device)
        with ExitStack() as stack:
            if device.type == "cuda":
                stack.enter_context(torch.cuda.device(device))
            stack.enter_context(own_randomness(self.model, self.seed))
            stack.enter_context(same_modes(self.model))
            stack.enter_context(nullcontext() if self.adapter else _without_adapter(self.model))
            self.model.eval()
            self.model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=self.config,
                streamer=Deltas(self.tokenizer, self.queue.put),
                stopping_criteria=StoppingCriteriaList([_Stop(self)]),
            )


def _without_adapter(model: Any) -> Any:
    """PEFT's context without the adapter; nothing to do for a model that has none."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


class _Stop(StoppingCriteria):
    """Ends generation after the token during which someone asked to."""

    def __init__(self, job: _Job) -> None:
        self.job = job

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full((input_ids.shape[0],), self.job.stopping, device=input_ids.device)
