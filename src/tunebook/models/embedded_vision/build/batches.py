"""Pictures and answers on the device, and batches of them: resized as the processor does, jittered.

Knows the file of pictures, the tokenizer and the grid of patches; it knows no weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tunebook.models.embedded_vision.build import tokenizer as chat
from tunebook.models.embedded_vision.build.batched import Grid, Prompt, grid_of, patches_of
from tunebook.models.embedded_vision.build.model import CELL, MAX_PIXELS, MIN_PIXELS
from tunebook.models.embedded_vision.build.pictures import STEPS, Pictures


@dataclass(frozen=True)
class Batch:
    """Some pictures with their answers.

    Attributes:
        patches: [batch, N, 64] float32, grey from -2 (black) to 0 (white).
        grid: where each patch stands.
        answers: [batch, length] int64: the answer, the token that ends it, then padding.
        learnt: [batch, length] bool, False on padding.
    """

    patches: Tensor
    grid: Grid
    answers: Tensor
    learnt: Tensor


class Shelf:
    """All pictures of a file on one device.

    Attributes:
        train, test: [count] int64, numbers of the pictures of each split.
        lengths: [count] int64, tokens of each answer with the one that ends it.
    """

    def __init__(self, pictures: Pictures, tokenizer: Tokenizer, device: str) -> None:
        self.formulas = pictures.formulas
        self._ink = torch.from_numpy(pictures.ink.copy()).to(device)
        self._sizes = torch.from_numpy(pictures.sizes).to(device)
        self._offsets = torch.from_numpy(pictures.offsets).to(device)
        end = tokenizer.token_to_id(chat.END)
        encoded = [[*one.ids, end] for one in tokenizer.encode_batch(pictures.formulas)]
        self.lengths = torch.tensor([len(ids) for ids in encoded], device=device)
        longest = int(self.lengths.max())
        padded = [ids + [end] * (longest - len(ids)) for ids in encoded]
        self._answers = torch.tensor(padded, dtype=torch.int16).to(device)
        everything = torch.arange(len(encoded), device=device)
        self.train = everything[: len(encoded) - pictures.test]
        self.test = everything[len(encoded) - pictures.test :]

    def areas(self, numbers: Tensor) -> Tensor:
        """Pixels of each picture."""
        return self._sizes[numbers].prod(dim=1)

    def batch(self, numbers: Tensor, generator: torch.Generator | None = None) -> Batch:
        """The pictures of those numbers; with a generator of its device, jittered."""
        images, high, wide = self._resized(numbers, generator)
        grid = grid_of(high, wide)
        lengths = self.lengths[numbers]
        answers = self._answers[numbers, : int(lengths.max())].long()
        learnt = torch.arange(answers.shape[1], device=answers.device) < lengths[:, None]
        return Batch(patches_of(images, grid), grid, answers, learnt)

    def _resized(
        self, numbers: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures [batch, H, W] and their sizes in image tokens.

        Jitter is white on every side, another size, paler ink and a little noise.
        """
        count, device = len(numbers), numbers.device

        def random(*shape: int) -> Tensor:
            return torch.rand(*shape, device=device, generator=generator)

        sizes = self._sizes[numbers].float()
        before = after = torch.zeros(count, 2, device=device)
        scale = torch.ones(count, 1, device=device)
        if generator is not None:
            before, after = (random(2, count, 2) * 6).round().unbind(0)
            scale = 0.85 + 0.35 * random(count, 1)
        whole = sizes + before + after
        high, wide = cells(whole * scale).unbind(1)
        target = torch.stack([high, wide], dim=1).float() * CELL
        down = self._source(int(high.max()) * CELL, whole[:, 0], target[:, 0], before[:, 0])
        across = self._source(int(wide.max()) * CELL, whole[:, 1], target[:, 1], before[:, 1])
        ink = self._between(numbers, down, across) / STEPS
        if generator is not None:
            ink = ink * (0.6 + 0.4 * random(count, 1, 1))
            noise = torch.randn(ink.shape, device=device, generator=generator)
            ink = ink + 0.03 * random(count, 1, 1) * noise
        return -2 * ink, high, wide

    @staticmethod
    def _source(length: int, whole: Tensor, target: Tensor, before: Tensor) -> Tensor:
        """Where in the stored picture each of `length` target pixels comes from, [batch, length]."""
        place = torch.arange(length, device=whole.device) + 0.5
        return place * (whole / target)[:, None] - 0.5 - before[:, None]

    def _between(self, numbers: Tensor, down: Tensor, across: Tensor) -> Tensor:
        """Ink at places between the stored pixels, [batch, H, W], 0 outside of the picture."""
        y, x = down.floor(), across.floor()
        fy, fx = (down - y)[:, :, None], (across - x)[:, None, :]
        y, x = y.long(), x.long()
        out = torch.zeros(len(numbers), down.shape[1], across.shape[1], device=down.device)
        high, wide = self._sizes[numbers].unbind(1)
        for dy, dx, share in (
            (0, 0, (1 - fy) * (1 - fx)), (0, 1, (1 - fy) * fx),
            (1, 0, fy * (1 - fx)), (1, 1, fy * fx),
        ):  # fmt: skip
            row, column = (y + dy)[:, :, None], (x + dx)[:, None, :]
            inside = (row >= 0) & (row < high[:, None, None])
            inside = inside & (column >= 0) & (column < wide[:, None, None])
            place = self._offsets[numbers, None, None] + column * high[:, None, None] + row
            out += torch.where(inside, self._ink[place.clamp(0, len(self._ink) - 1)], 0) * share
        return out


def cells(pixels: Tensor) -> Tensor:
    """Image tokens down and across, [batch, 2] int64, of pictures as the processor resizes them."""
    rounded = (pixels / CELL).round()
    area = rounded.prod(dim=1, keepdim=True) * CELL**2
    by = pixels.prod(dim=1, keepdim=True)
    larger = (pixels * (MIN_PIXELS / by).sqrt() / CELL).ceil()
    smaller = (pixels / (by / MAX_PIXELS).sqrt() / CELL).floor().clamp(min=1)
    fitted = torch.where(area < MIN_PIXELS, larger, torch.where(area > MAX_PIXELS, smaller, rounded))
    return fitted.long()


def prompts(tokenizer: Tokenizer, device: str) -> list[Prompt]:
    """Every instruction before the picture, and behind it."""
    opening, closing = f"{chat.START}user\n", f"{chat.END}\n{chat.START}assistant\n"
    texts = [
        (f"{opening}{before}{chat.VISION_START}", f"{chat.VISION_END}{behind}{closing}")
        for text in chat.INSTRUCTIONS
        for before, behind in ((text, ""), ("", text))
    ]

    def ids(text: str) -> Tensor:
        return torch.tensor(tokenizer.encode(text).ids, device=device)

    return [Prompt(ids(before), ids(behind)) for before, behind in texts]
