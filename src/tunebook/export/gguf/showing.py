"""Show a picture to llama.cpp and to the live model, and set their probabilities side by side.

The picture has a size that neither of them changes, so that both see the same pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook.export.gguf.judge import LlamaServer, picture_part
from tunebook.export.gguf.projector import plain_size
from tunebook.export.verification import logits_of

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from tunebook.export.gguf.writer import Content

Place = tuple["torch.Tensor", dict[int, float]]
"""Where both were asked for the next token: log-probabilities of the live model, and llama.cpp's."""
ANSWER = 8  # tokens to a picture
TOP = 100  # tokens of each place whose probabilities are compared
_QUESTION = "What is in the picture?"


def picture(size: tuple[int, int], seed: int = 0) -> Image:
    """A picture full of coloured spots that flow into one another.

    Args:
        size: width and height.
    """
    import numpy as np
    from PIL import Image

    spots = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(spots).resize(size, Image.Resampling.BICUBIC)


def png(image: Image) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True)
class Shown:
    """A question about a picture.

    Attributes:
        image: the picture.
        inputs: what the live model takes.
    """

    image: Image
    inputs: dict[str, torch.Tensor]

    @classmethod
    def of(cls, content: Content, processor: Any, seed: int = 0) -> Shown:
        """A question for a model that sees.

        Args:
            content: of its files.
            seed: of the picture.
        """
        assert content.projector is not None
        image = picture(plain_size(content.projector.metadata), seed)
        parts = [{"type": "image", "image": image}, {"type": "text", "text": _QUESTION}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        return cls(image, dict(inputs))

    @property
    def tokens(self) -> int:
        """Of the question, with those of the picture."""
        return int(self.inputs["input_ids"].shape[1])

    def answer(self, server: LlamaServer, *, top: int = TOP) -> list[tuple[int, dict[int, float]]]:
        """llama.cpp's answer: its tokens, and the log-probabilities of the likeliest at each."""
        parts = [picture_part(png(self.image)), {"type": "text", "text": _QUESTION}]
        messages = [{"role": "user", "content": parts}]
        return server.answer_to_picture(messages, tokens=ANSWER, top=top)

    def log_probabilities(self, model: Any, answer: list[tuple[int, Any]]) -> torch.Tensor:
        """The live model's at every token of an answer, (tokens, vocabulary)."""
        live = logits_of(model, self._with([token for token, _ in answer]), self.tokens - 1)
        return live.log_softmax(-1)

    def places(self, server: LlamaServer, model: Any, *, top: int = TOP) -> Iterator[Place]:
        """Both models at every token of llama.cpp's answer."""
        answer = self.answer(server, top=top)
        likely = (likely for _, likely in answer)
        return zip(self.log_probabilities(model, answer), likely, strict=False)

    def _with(self, answer: list[int]) -> dict[str, torch.Tensor]:
        """The inputs with an answer behind the question."""
        import torch

        inputs, shape = dict(self.inputs), self.inputs["input_ids"].shape
        for name, value in inputs.items():
            if value.shape != shape:
                continue
            fill = {"input_ids": answer, "attention_mask": [1] * len(answer)}
            more = fill.get(name, [0] * len(answer))
            inputs[name] = torch.cat([value, torch.tensor([more], dtype=value.dtype)], dim=1)
        return inputs
