"""Talks with a model: streams an answer as it is made, from any thread, even during training.

Knows tokenizers, `generate` and PEFT models; knows no run and no panel.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from tunebook.engine.decoding import Chooser, Token, generation_config, own_penalty
from tunebook.engine.locks import ModelLock, model_lock, unwrapped
from tunebook.engine.state import own_randomness, same_modes
from tunebook.engine.streaming import Deltas, Tokens
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
    top_k: int = 0,
    min_p: float = 0.0,
    repetition_penalty: float | None = None,
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
        top_k: keep this many of the likeliest tokens; 0 keeps all.
        min_p: leave out tokens below this share of the likeliest one's probability.
        repetition_penalty: above 1 makes what was said before less likely; None is the model's own.
        adapter: False answers as the model did before fine-tuning.
        stop: set it from anywhere to end the answer after the next token.
        seed: of the sampling; None draws a new one.

    Raises:
        RowInvalid: there is no message. TemplateInvalid: the chat template is missing or fails.
        ConversationTooLong: no room is left for an answer.
        TunebookError: whatever the model raised while it was generating.
    """
    sampling = (temperature, top_p, top_k, min_p, repetition_penalty)
    job = _job(
        model,
        tokenizer,
        encode_messages(tokenizer, messages),
        max_new_tokens,
        sampling,
        adapter,
        stop,
        seed,
    )
    return job.items(Deltas(tokenizer, job.queue.put))


def stream_tokens(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    messages: str | Sequence[Message],
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    repetition_penalty: float | None = None,
    adapter: bool = True,
    stop: threading.Event | None = None,
    seed: int | None = None,
) -> Iterator[Token]:
    """The answer token by token, each with its probability and the likeliest alternatives.

    Arguments and errors as in `stream_chat`; the tokens' texts together are the same answer.
    """
    sampling = (temperature, top_p, top_k, min_p, repetition_penalty)
    job = _job(
        model,
        tokenizer,
        encode_messages(tokenizer, messages),
        max_new_tokens,
        sampling,
        adapter,
        stop,
        seed,
    )
    return job.items(Tokens(tokenizer, job.chooser, job.queue.put))


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
    inputs: Mapping[str, torch.Tensor] | None = None,
) -> str:
    """The likeliest answer to a prompt that is token ids already; errors as in `stream_chat`.

    Args:
        inputs: what belongs to the tokens beside them, such as `pixel_values`.
    """
    prompt, likeliest = torch.tensor([list(ids)]), (0.0, 1.0, 0, 0.0, None)
    job = _job(model, tokenizer, prompt, max_new_tokens, likeliest, True, None, 0)
    job.inputs = inputs or {}
    return "".join(job.items(Deltas(tokenizer, job.queue.put)))


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


def _room(model: nn.Module, length: int, max_new_tokens: int) -> int:
    """How many new tokens there is room for."""
    inner: Any = unwrapped(model)
    context = getattr(inner.config, "max_position_embeddings", None)
    room = max_new_tokens if context is None else min(max_new_tokens, context - length)
    if room < 1:
        raise ConversationTooLong(
            "The conversation leaves no room for an answer.",
            f"it has {length} tokens and the model reads {context}; {max_new_tokens} were asked.",
            "shorten it, leave out early turns, or ask for at least one token.",
        )
    return room


def _job(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompt: torch.Tensor,
    max_new_tokens: int,
    sampling: tuple[float, float, int, float, float | None],
    adapter: bool,
    stop: threading.Event | None,
    seed: int | None,
) -> _Job:
    room = _room(model, prompt.shape[1], max_new_tokens)
    temperature, top_p, top_k, min_p, penalty = sampling
    chooser = Chooser(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=own_penalty(model) if penalty is None else penalty,
    )
    config = generation_config(model, tokenizer, room, sampled=chooser.sampled)
    return _Job(model, prompt, config, chooser, adapter=adapter, seed=seed, stop=stop)


class _Job:
    """One answer: a thread that generates, a queue, and the thread that reads it."""

    def __init__(
        self,
        model: nn.Module,
        prompt: torch.Tensor,
        config: Any,
        chooser: Chooser,
        *,
        adapter: bool,
        seed: int | None,
        stop: threading.Event | None,
    ) -> None:
        self.model: Any = model
        self.prompt = prompt
        self.config = config
        self.chooser = chooser
        self.adapter = adapter
        self.seed = secrets.randbits(63) if seed is None else seed
        self.stop = stop
        self.inputs: Mapping[str, torch.Tensor] = {}
        self.closed = threading.Event()
        self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @property
    def stopping(self) -> bool:
        """Whether someone asked to end."""
        return self.closed.is_set() or (self.stop is not None and self.stop.is_set())

    def items(self, streamer: BaseStreamer) -> Iterator[Any]:
        """Start the thread and yield what the streamer puts out; runs in the reader's thread."""
        # A trainer's callback may answer while its own thread holds the lock: it lends it then.
        lock = model_lock(self.model)
        worker = threading.Thread(
            target=self._work,
            args=(None if lock.held else lock, streamer),
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

    def _work(self, lock: ModelLock | None, streamer: BaseStreamer) -> None:
        try:
            while lock is not None and not lock.acquire(timeout=_POLL):
                if self.stopping:
                    return
            try:
                if not self.stopping:
                    self._generate(streamer)
            finally:
                if lock is not None:
                    lock.release()
        except BaseException as error:
            self.queue.put(error)
        finally:
            self.queue.put(None)

    def _generate(self, streamer: BaseStreamer) -> None:
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
                **{name: value.to(device) for name, value in self.inputs.items()},
                generation_config=self.config,
                streamer=streamer,
                logits_processor=self.chooser.processors,
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
