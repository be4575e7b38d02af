"""The shape of a model's eyes: the vision tower's sizes, what it counts, and what a picture costs in it.

Knows the fields of a `config.json` and the arithmetic of each family's processor; knows no pictures,
no weights and no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tunebook.models import vision_sizes
from tunebook.models.vision_counts import tower_parameters
from tunebook.recipe import LoraPart

Pair = tuple[int, int]

SAME_IN_VISION: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), ("qkv",)),
    "o_proj": ("proj", "out_proj"),
    **dict.fromkeys(("gate_proj", "up_proj"), ("fc1", "linear_fc1")),
    "down_proj": ("fc2", "linear_fc2"),
}
"""What the layers that do the same are called in vision towers, where they are called otherwise."""


@dataclass(frozen=True)
class ImageCost:
    """What becomes of one picture.

    Attributes:
        width, height: in pixels, as the tower sees it: after resizing and, in tiles, padding.
        patches: that go into the tower, in all tiles; with a class token where there is one.
        tokens: image tokens in the text, without those that frame them or end their rows.
        tiles: separate pictures that it became, the overview among them; 1 where it stays whole.
    """

    width: int
    height: int
    patches: int
    tokens: int
    tiles: int = 1


class VisionShape(BaseModel):
    """Sizes of a vision tower with its projector, and the family's rule of resizing; immutable."""

    model_config = ConfigDict(frozen=True)

    family: str = Field(description="`model_type` of the whole, or `pixtral` for its LLaVA form.")
    patch_size: int = Field(ge=1, description="Pixels along one side of a patch.")
    merge_size: int = Field(default=1, description="Patches along one side of an image token.")
    hidden_size: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1, description="All, those behind the last looked at too.")
    layers_seen: int = Field(ge=1, description="Up to the last one that is looked at.")
    num_attention_heads: int = Field(ge=1)
    gated_mlp: bool = False
    layer_names: tuple[str, ...] = Field(description="Of one layer's linear modules.")
    class_token: bool = False
    window_size: int | None = Field(default=None, description="Pixels along a side of a window.")
    full_layers: int = Field(default=0, description="Layers that see the whole picture.")
    projector: tuple[Pair, ...] = Field(description="In and out of every linear layer of it.")
    parameters: int = Field(ge=1, description="Of tower and projector.")
    tile: int = Field(description="Pixels along a side of the square picture or tile.")
    longest_edge: int | None = Field(default=None, description="Pixels; longer pictures shrink.")
    min_pixels: int | None = Field(default=None, description="Of the picture after resizing.")
    max_pixels: int | None = None
    max_tiles: int = 1
    pinpoints: tuple[Pair, ...] = Field(default=(), description="Heights and widths of canvases.")

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], pictures: Mapping[str, Any] | None = None
    ) -> VisionShape | None:
        """The shape in a `config.json`; None if the model takes no pictures, or of an unknown family.

        Args:
            pictures: the model's `preprocessor_config.json`, where it is known; else what the
                family's models were published with.
        """
        values = vision_sizes.read(config, pictures or {})
        if values is None:
            return None
        return cls(parameters=tower_parameters(config, values), **values)

    def linear_layers(self) -> dict[str, Pair]:
        """The linear layers of one layer of the tower: name to (in, out)."""
        hidden, wide = self.hidden_size, self.intermediate_size
        sizes = {
            "qkv": (hidden, 3 * hidden),
            **dict.fromkeys(("gate_proj", "up_proj", "fc1", "linear_fc1"), (hidden, wide)),
            **dict.fromkeys(("down_proj", "fc2", "linear_fc2"), (wide, hidden)),
        }
        return {name: sizes.get(name, (hidden, hidden)) for name in self.layer_names}

    def linear_parameters(self) -> int:
        """Weights of all linear layers, the projector's among them, without biases."""
        layers = self.num_hidden_layers * sum(i * o for i, o in self.linear_layers().values())
        return layers + sum(i * o for i, o in self.projector)

    def adapted_layers(self, lora: LoraPart) -> dict[str, Pair]:
        """The modules of one layer of the tower that `lora` targets: name to (in, out)."""
        if not lora.vision_layers:
            return {}
        wanted = lora.target_modules
        names = {name.rsplit(".", 1)[-1] for name in wanted}
        names |= {same for name in names for same in SAME_IN_VISION.get(name, ())}
        return {
            name: size
            for name, size in self.linear_layers().items()
            if (wanted == "all-linear" or name in names)
            and (lora.attention_modules if name in _ATTENTION else lora.mlp_modules)
        }

    def adapted_projector(self, lora: LoraPart) -> tuple[Pair, ...]:
        """In and out of the projector's layers that `lora` targets: all or none."""
        reached = lora.target_modules == "all-linear" and lora.vision_layers and lora.mlp_modules
        return self.projector if reached else ()

    def lora_parameters(self, lora: LoraPart) -> int:
        """Weights of the adapters on tower and projector."""
        layers = sum(i + o for i, o in self.adapted_layers(lora).values())
        between = sum(i + o for i, o in self.adapted_projector(lora))
        return lora.r * (self.layers_seen * layers + between)

    def cost(
        self,
        width: int,
        height: int,
        *,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
    ) -> ImageCost:
        """What a picture of this size becomes, as the family's processor of transformers makes it.

        Args:
            min_pixels, max_pixels: replace Qwen's own limits; for other families the picture is
                brought within them before the processor has it, see `fit_pixels`.

        Raises:
            ValueError: a picture whose sides are too unequal for the family.
        """
        if self.min_pixels is not None:
            least = self.min_pixels if min_pixels is None else min_pixels
            return self._in_patches(width, height, least, max_pixels or self.max_pixels or least)
        width, height = fit_pixels((width, height), min_pixels, max_pixels)
        if self.family in ("pixtral", "mistral3"):
            return self._within_edge(width, height)
        if self.family == "mllama":
            return self._on_canvas(width, height)
        if self.family == "llava_next":
            return self._on_pinpoint(width, height)
        if self.family in ("idefics3", "smolvlm"):
            return self._split(width, height)
        side = self.tile // self.patch_size
        tokens = (side // self.merge_size) ** 2
        return ImageCost(self.tile, self.tile, side**2 + self.class_token, tokens)

    def _in_patches(self, width: int, height: int, least: int, most: int) -> ImageCost:
        """Qwen: sides become multiples of a token's, within the limits of pixels."""
        unit = self.patch_size * self.merge_size
        if max(width, height) > 200 * min(width, height):
            raise ValueError("the longer side is more than 200 times the shorter one")
        new_height, new_width = (round(side / unit) * unit for side in (height, width))
        if new_height * new_width > most:
            shrink = math.sqrt(height * width / most)
            new_height, new_width = (
                max(unit, math.floor(side / shrink / unit) * unit) for side in (height, width)
            )
        elif new_height * new_width < least:
            grow = math.sqrt(least / (height * width))
            new_height, new_width = (
                math.ceil(side * grow / unit) * unit for side in (height, width)
            )
        return self._whole(new_width, new_height)

    def _within_edge(self, width: int, height: int) -> ImageCost:
        """Pixtral: the longer side is bounded, and both are filled up to whole tokens."""
        unit = self.patch_size * self.merge_size
        longest = self.longest_edge or self.tile
        ratio = max(height / longest, width / longest)
        if ratio > 1:
            height, width = math.floor(height / ratio), math.floor(width / ratio)
        if not min(width, height):
            raise ValueError("the shorter side would shrink to nothing")
        return self._whole(
            ((width - 1) // unit + 1) * unit,
            ((height - 1) // unit + 1) * unit,
        )

    def _whole(self, width: int, height: int) -> ImageCost:
        patches = (width // self.patch_size) * (height // self.patch_size)
        return ImageCost(width, height, patches, patches // self.merge_size**2)

    def _on_canvas(self, width: int, height: int) -> ImageCost:
        """Llama: the canvas of tiles that enlarges it least, or else shrinks it least.

        The tower works on as many tiles as there can be, and the text has one token a picture.
        """
        most = self.max_tiles
        canvases = [(w, h) for w, h in product(range(1, most + 1), repeat=2) if w * h <= most]
        scales = [
            min(rows * self.tile / height, columns * self.tile / width)
            for rows, columns in canvases
        ]
        enlarging = [scale for scale in scales if scale >= 1]
        chosen = min(enlarging) if enlarging else max(scales)
        rows, columns = min(
            (canvas for canvas, scale in zip(canvases, scales, strict=True) if scale == chosen),
            key=math.prod,
        )
        patches = self.max_tiles * self._tile_patches
        return ImageCost(columns * self.tile, rows * self.tile, patches, 1, rows * columns)

    def _on_pinpoint(self, width: int, height: int) -> ImageCost:
        """LLaVA-NeXT: an overview, and tiles of the canvas that wastes least; padding costs no tokens."""
        canvas_height, canvas_width = _best_canvas(width, height, self.pinpoints)
        side = self.tile // self.patch_size
        rows, columns = (side * (size // self.tile) for size in (canvas_height, canvas_width))
        tiles = 1 + (canvas_height // self.tile) * (canvas_width // self.tile)
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        tokens = rows * columns + rows + side**2  # one more token ends each row
        return ImageCost(canvas_width, canvas_height, tiles * self._tile_patches, tokens, tiles)

    def _split(self, width: int, height: int) -> ImageCost:
        """Idefics3: the longer side to a fixed length, filled up to whole tiles, and an overview."""
        longest, tile = self.longest_edge or 4 * self.tile, self.tile
        width, height = _at_length(width, height, longest)
        shape = width / height
        if width >= height:
            width = math.ceil(width / tile) * tile
            height = math.ceil(int(width / shape) / tile) * tile
        else:
            height = math.ceil(height / tile) * tile
            width = math.ceil(int(height * shape) / tile) * tile
        parts = (width // tile) * (height // tile)
        tiles = parts + 1 if parts > 1 else 1
        tokens = tiles * (tile // self.patch_size) ** 2 // self.merge_size**2
        return ImageCost(width, height, tiles * self._tile_patches, tokens, tiles)

    @property
    def _tile_patches(self) -> int:
        return (self.tile // self.patch_size) ** 2 + self.class_token


_ATTENTION = ("qkv", "proj", "q_proj", "k_proj", "v_proj", "o_proj", "out_proj")


def fit_pixels(size: Pair, min_pixels: int | None = None, max_pixels: int | None = None) -> Pair:
    """A width and height of the same shape with at least and at most so many pixels."""
    width, height = size
    pixels = width * height
    if max_pixels is not None and pixels > max_pixels:
        scale = math.sqrt(max_pixels / pixels)
        return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))
    if min_pixels is not None and pixels < min_pixels:
        scale = math.sqrt(min_pixels / pixels)
        return math.ceil(width * scale), math.ceil(height * scale)
    return width, height


def _best_canvas(width: int, height: int, canvases: tuple[Pair, ...]) -> Pair:
    """Height and width of the first canvas that shows the most of a picture and wastes the least."""

    def shown_and_wasted(canvas: Pair) -> Pair:
        scale = min(canvas[1] / width, canvas[0] / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        return shown, shown - canvas[0] * canvas[1]

    return max(canvases, key=shown_and_wasted)


def _at_length(width: int, height: int, longest: int) -> Pair:
    """The size whose longer side is `longest`, the other one even, and none above 4096."""
    shape = width / height
    if width >= height:
        width, height = longest, int(longest / shape)
        height += height % 2
    else:
        width, height = int(longest * shape), longest
        width += width % 2
    width, height = max(width, 1), max(height, 1)
    if max(width, height) > _LARGEST:
        shape = width / height
        if width >= height:
            width, height = _LARGEST, int(_LARGEST / shape)
        else:
            width, height = int(_LARGEST * shape), _LARGEST
    return max(width, 1), max(height, 1)


_LARGEST = 4096  # pixels of a side, whatever a model's processor asks for
