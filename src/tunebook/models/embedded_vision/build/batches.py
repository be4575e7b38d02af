"""Pictures and answers on the device, and batches of them: resized as the processor does, jittered.

Knows the file of pictures, the tokenizer and the grid of patches; it knows no weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tunebook.latex.grammar import SIGNS
from tunebook.models.embedded_vision.build import tokenizer as chat
from tunebook.models.embedded_vision.build.batched import Grid, Prompt, grid_of, patches_of
from tunebook.models.embedded_vision.build.model import CELL, MAX_PIXELS, MIN_PIXELS
from tunebook.models.embedded_vision.build.pictures import STEPS, Pictures


@dataclass(frozen=True)
class Batch:
    """Some pictures of one size with their answers.

    Attributes:
        patches: [batch, N, 64] float32, grey from -2 (black) to 0 (white).
        grid: where each patch stands.
        answers: [batch, length] int64: the answer, the token that ends it, then padding.
        learnt: [batch, length] bool, False on padding.
        places: [batch, tokens, signs] float32, 1 where a sign's middle is in an image token; None
            where that is not known.
    """

    patches: Tensor
    grid: Grid
    answers: Tensor
    learnt: Tensor
    places: Tensor | None = None


class Shelf:
    """All pictures of a file on one device.

    Attributes:
        train, test: [count] int64, numbers of the pictures of each split.
        lengths: [count] int64, tokens of each answer with the one that ends it.
        signs: [signs] int64, the token that tells each sign, as it is behind a space.
    """

    def __init__(self, pictures: Pictures, tokenizer: Tokenizer, device: str) -> None:
        self.formulas = pictures.formulas
        self._tokenizer = tokenizer
        self._ink = torch.from_numpy(pictures.ink.copy()).to(device)
        self._sizes = torch.from_numpy(pictures.sizes).to(device)
        self._offsets = torch.from_numpy(pictures.offsets).to(device)
        self._answers, learnt = self._encoded(pictures.formulas)
        self.lengths = learnt.sum(dim=1)
        everything = torch.arange(len(pictures.formulas), device=device)
        self.train = everything[: len(everything) - pictures.test]
        self.test = everything[len(everything) - pictures.test :]
        last = [one.ids[-1] for one in tokenizer.encode_batch([f" {sign}" for sign in SIGNS])]
        self.signs = torch.tensor(last, device=device)
        places = {sign: number for number, sign in enumerate(SIGNS)}
        alone = [(at, places[text]) for at, text in enumerate(pictures.formulas) if text in places]
        self._alone, self._sign = torch.tensor(alone, device=device).reshape(-1, 2).unbind(1)

    @property
    def device(self) -> torch.device:
        """Where everything is."""
        return self._sizes.device

    def cells(self, numbers: Tensor) -> Tensor:
        """Image tokens down and across of each picture, [batch, 2] int64."""
        return cells(self._sizes[numbers].float())

    def batch(
        self,
        numbers: Tensor,
        size: tuple[int, int],
        generator: torch.Generator | None = None,
    ) -> Batch:
        """The pictures of those numbers, all resized to `size` image tokens; with a generator, jittered.

        Jitter is white on every side, paler ink and a little noise.
        """
        count = len(numbers)
        sizes = self._sizes[numbers].float()
        before = after = torch.zeros_like(sizes)
        if generator is not None:
            before, after = (self._random(generator, 2, count, 2) * 6).round().unbind(0)
        step = (sizes + before + after) / (CELL * torch.tensor(size, device=self.device))
        down, across = (
            (torch.arange(CELL * side, device=self.device) + 0.5) * step[:, at, None]
            - 0.5
            - before[:, at, None]
            for at, side in enumerate(size)
        )
        ink = self._between(numbers[:, None, None], down[:, :, None], across[:, None, :])
        lengths = self.lengths[numbers]
        answers = self._answers[numbers, : int(lengths.max())]
        learnt = torch.arange(answers.shape[1], device=self.device) < lengths[:, None]
        grid = grid_of(*size, self.device)
        return Batch(patches_of(self._paper(ink, generator), grid), grid, answers, learnt)

    def line(self, count: int, signs: int, generator: torch.Generator) -> Batch:
        """Lines of single signs pasted side by side, so that the place of each is known."""
        device = self.device
        width = 14 + int(14 * torch.rand((), generator=generator, device=device))
        size = (2, -(-signs * width // CELL))
        picked = torch.randint(len(self._alone), (count, signs), generator=generator, device=device)
        numbers, which = self._alone[picked], self._sign[picked]
        sizes = self._sizes[numbers].float()
        scale = (width / sizes[..., 1]).clamp(max=1.3) * (
            1 - 0.3 * self._random(generator, count, signs)
        )
        left = (width - scale * sizes[..., 1]) * self._random(generator, count, signs)
        room = CELL * size[0] - scale * sizes[..., 0]
        above = room * (0.2 + 0.6 * self._random(generator, count, signs))
        across = torch.arange(CELL * size[1], device=device)
        slot = (across // width).clamp(max=signs - 1)
        x = (across - slot * width - left[:, slot] + 0.5) / scale[:, slot] - 0.5
        down = torch.arange(CELL * size[0], device=device)
        y = (down[:, None] - above[:, None, slot] + 0.5) / scale[:, None, slot] - 0.5
        ink = self._between(numbers[:, None, slot], y, x[:, None, :])
        middle = torch.arange(signs, device=device) * width + left + scale * sizes[..., 1] / 2
        high = (above + scale * sizes[..., 0] / 2).clamp(0, CELL * size[0] - 1)
        cell = (high // CELL * size[1] + middle.clamp(0, CELL * size[1] - 1) // CELL).long()
        places = torch.zeros(count, size[0] * size[1], len(SIGNS), device=device)
        places[torch.arange(count, device=device)[:, None], cell, which] = 1.0
        texts = [" ".join(SIGNS[sign] for sign in row) for row in which.tolist()]
        grid = grid_of(*size, device)
        return Batch(
            patches_of(self._paper(ink, generator), grid), grid, *self._encoded(texts), places
        )

    def _encoded(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Answers with the token that ends them, padded, and which of them are no padding."""
        end = chat.token_id(self._tokenizer, chat.END)
        encoded = [[*one.ids, end] for one in self._tokenizer.encode_batch(texts)]
        longest = max(map(len, encoded))
        answers = torch.tensor([ids + [end] * (longest - len(ids)) for ids in encoded])
        lengths = torch.tensor([len(ids) for ids in encoded])
        learnt = torch.arange(longest) < lengths[:, None]
        return answers.to(self.device), learnt.to(self.device)

    def _random(self, generator: torch.Generator, *shape: int) -> Tensor:
        return torch.rand(*shape, device=self.device, generator=generator)

    def _paper(self, ink: Tensor, generator: torch.Generator | None) -> Tensor:
        """Ink from 0 to `STEPS` as the model sees it, -2 to 0."""
        ink = ink / STEPS
        if generator is not None:
            count = len(ink)
            ink = ink * (0.6 + 0.4 * self._random(generator, count, 1, 1))
            noise = torch.randn(ink.shape, device=self.device, generator=generator)
            ink = ink + 0.03 * self._random(generator, count, 1, 1) * noise
        return -2 * ink

    def _between(self, numbers: Tensor, down: Tensor, across: Tensor) -> Tensor:
        """Ink at places between the stored pixels, 0 outside of the picture; shapes are broadcast."""
        y, x = down.floor(), across.floor()
        fy, fx = down - y, across - x
        y, x = y.long(), x.long()
        high, wide = self._sizes[numbers].unbind(-1)
        offset, last = self._offsets[numbers], len(self._ink) - 1
        out: Tensor | float = 0.0
        for dy, dx, share in (
            (0, 0, (1 - fy) * (1 - fx)), (0, 1, (1 - fy) * fx),
            (1, 0, fy * (1 - fx)), (1, 1, fy * fx),
        ):  # fmt: skip
            row, column = y + dy, x + dx
            inside = ((row >= 0) & (row < high)) & ((column >= 0) & (column < wide))
            place = (offset + column * high + row).clamp(0, last)
            out = out + self._ink[place] * (inside * share)
        assert isinstance(out, Tensor)
        return out


def cells(pixels: Tensor) -> Tensor:
    """Image tokens down and across, [batch, 2] int64, of pictures as the processor resizes them."""
    rounded = (pixels / CELL).round()
    area = rounded.prod(dim=1, keepdim=True) * CELL**2
    by = pixels.prod(dim=1, keepdim=True)
    larger = (pixels * (MIN_PIXELS / by).sqrt() / CELL).ceil()
    smaller = (pixels / (by / MAX_PIXELS).sqrt() / CELL).floor().clamp(min=1)
    fitted = torch.where(
        area < MIN_PIXELS, larger, torch.where(area > MAX_PIXELS, smaller, rounded)
    )
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
