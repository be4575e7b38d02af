"""Conversations with pictures as a vision model's template writes them, and where each turn lies.

The same rendering and the same spans as for text; knows marks for pictures, but no pixels.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from tunebook.data.conversations import Message
from tunebook.data.frames import SENTINEL
from tunebook.data.masking import Encoder
from tunebook.data.pictures import parts_of
from tunebook.data.rendering import Renderer, Span
from tunebook.data.shapes import Shape
from tunebook.data.turns import IMAGE_MARK
from tunebook.errors import TemplateInvalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from tunebook.data.tools import Tool


class VisionRenderer(Renderer):
    """A template that is given content parts, where a turn holds a picture or wants them anyway."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tools: list[Tool] | None = None) -> None:
        super().__init__(tokenizer, tools)
        self._wants_parts: dict[str, bool] = {}

    def _shape(self, roles: tuple[str, ...]) -> Shape | None:
        """None: what stands where a picture is marked is the template's."""
        return None

    def _render(
        self, messages: list[Message], *, generation_prompt: bool = False, track: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        given = [self._in_parts(message) for message in messages]
        try:
            return super()._render(given, generation_prompt=generation_prompt, track=track)
        except TemplateInvalid as error:
            if not any(IMAGE_MARK in str(message["content"]) for message in messages):
                raise
            raise TemplateInvalid(
                "The chat template refuses a conversation with pictures.",
                error.why,
                "mend the conversation, or choose a chat template that writes pictures, such as the "
                "model's own.",
            ) from error

    def _in_parts(self, message: Message) -> Message:
        content = message["content"]
        if not isinstance(content, str):
            return message
        if IMAGE_MARK in content or self._takes_parts(message["role"]):
            return {**message, "content": parts_of(content)}
        return message

    def _takes_parts(self, role: str) -> bool:
        """Whether the template writes a turn of this role that is given as parts."""
        if role not in self._wants_parts:
            probe = [{"role": role, "content": [{"type": "text", "text": SENTINEL}]}]
            asked = [{"role": "user", "content": [{"type": "text", "text": "q"}]}]
            turns = {"system": probe + asked, "user": probe}.get(role, asked + probe)
            try:
                text = super()._render(turns)[0]
                good = text.count(SENTINEL) == 1 and "'type'" not in text
            except TemplateInvalid:
                good = False
            self._wants_parts[role] = good
        return self._wants_parts[role]


class VisionTexts(Encoder):
    """Renders rows for a processor, whose template and tokenizer it uses; see `Encoder`.

    Args:
        variables: what the template is given besides the conversation.
    """

    def __init__(
        self, processor: ProcessorMixin, *, variables: dict[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(tokenizer_of(processor), **options)
        self._variables = variables or {}

    def render(self, messages: list[Message]) -> tuple[str, list[Span], bool]:
        """Text and spans of one row; plain text gets the start and end tokens that it lacks."""
        text, spans, plain = super().render(messages)
        if not plain:
            return text, spans, False
        start, end = self.tokenizer.bos_token or "", self.tokenizer.eos_token or ""
        text = start + text.removeprefix(start)
        text = text if end and text.endswith(end) else text + end
        return text, [Span(0, len(text), "text", 0, True)], False

    def make_renderer(self, tools: list[Tool] | None) -> Renderer:
        """A renderer of content parts."""
        renderer = VisionRenderer(self.tokenizer, tools)
        renderer.set_variables(self._variables)
        return renderer


def tokenizer_of(processor: Any) -> PreTrainedTokenizerBase:
    """The processor's tokenizer, with the processor's own chat template; a tokenizer is its own."""
    seeing = hasattr(processor, "image_processor")
    tokenizer: PreTrainedTokenizerBase = processor.tokenizer if seeing else processor
    template = getattr(processor, "chat_template", None)
    if template and template != tokenizer.chat_template:
        tokenizer = copy.copy(tokenizer)
        tokenizer.chat_template = template
    return tokenizer
