"""Bytes that a vision tower takes: adapters, and what its fused blocks keep for the backward.

Counts by patches what `engine/vision_block.py` holds, with the arithmetic of decoder layers; knows no
language tower, no head and no budget.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunebook.models.shape import ModelShape
from tunebook.models.vision_shape import VisionShape
from tunebook.plan.fused_layer import Group, LayerBytes, group_of
from tunebook.plan.memory import BYTES, Batch
from tunebook.plan.nouns import Level, Strategy
from tunebook.plan.optimizers import state_bytes
from tunebook.recipe import Recipe

_GROUPS = {
    "qkv": ("qkv", "q_proj", "k_proj", "v_proj"),
    "o": ("proj", "out_proj", "o_proj"),
    "gate_up": ("gate_proj", "up_proj", "fc1", "linear_fc1"),
    "down": ("down_proj", "fc2", "linear_fc2"),
}
_FLAT_UNIT = 256
_CHANNELS = 3
_FLOAT = 4


def tower_adapters(
    vision: VisionShape, recipe: Recipe, strategy: Strategy, *, unit: int = _FLAT_UNIT
) -> tuple[int, int]:
    """Bytes of the adapters in flat buffers, and of the optimizer's states over them."""
    r, width = recipe.lora.r, BYTES[strategy.adapter_dtype]
    sizes = [
        *vision.layers_seen * [*vision.adapted_layers(recipe.lora).values()],
        *vision.adapted_projector(recipe.lora),
    ]
    values = sum(-(-r * one // unit) * unit for pair in sizes for one in pair)
    states = sum(
        state_bytes(strategy.optimizer, r, one, width, unit=unit) for pair in sizes for one in pair
    )
    return values * width, states


@dataclass(frozen=True)
class TowerBytes:
    """A tower's activations in one step.

    Attributes:
        kept: until the language tower's backward has ended; 0 where nothing of the tower learns.
        inside: that the backward of its last block adds, when what the language tower keeps is gone.
        copies: of adapters in the compute dtype, which stay.
        scratch: that weights are unpacked into, which stays.
        forward: that one block holds in the forward of a tower that does not learn.
        pixels: of the images themselves, as the processor gives them.
    """

    kept: int = 0
    inside: int = 0
    copies: int = 0
    scratch: int = 0
    pixels: int = 0
    forward: int = 0


def tower_activations(
    shape: ModelShape, recipe: Recipe, strategy: Strategy, patches: int
) -> TowerBytes:
    """Of a batch with so many patches in all its images."""
    vision = shape.vision
    if vision is None:
        return TowerBytes()
    block = _BlockBytes(vision, recipe, strategy, patches)
    width = BYTES[strategy.dtype]
    copies = sum(group.adapter_values for group in block.groups.values()) * width
    resident = TowerBytes(
        copies=copies * vision.layers_seen,
        scratch=max(group.matrix_values * group.packed for group in block.groups.values()) * width,
    )
    if not patches:
        return resident
    pixels = patches * _CHANNELS * vision.patch_size**2 * _FLOAT
    pixels *= 2 if vision.family.startswith("qwen") else 1  # each image counts as two moments
    learns = bool(vision.adapted_layers(recipe.lora))
    between = _between(vision, recipe, patches, width)
    level = strategy.vision_level
    tables = 2 * patches * block.shape.head_dim * _FLOAT if vision.family != "gemma3" else 0
    kept = vision.layers_seen * block.kept(level) + tables if learns else 0
    return TowerBytes(
        kept=kept + (between if learns or vision.adapted_projector(recipe.lora) else 0),
        inside=block.backward(level) - between if learns else 0,
        copies=resident.copies,
        scratch=resident.scratch,
        pixels=pixels,
        forward=block.passing() + 2 * tables,
    )


def _between(vision: VisionShape, recipe: Recipe, patches: int, width: int) -> int:
    """What the projector keeps: the norm's input, each layer's, what activations read, low ranks."""
    tokens = -(-patches // vision.merge_size**2)
    rank = recipe.lora.r if vision.adapted_projector(recipe.lora) else 0
    columns = sum(size_in + rank for size_in, _ in vision.projector)
    columns += sum(size_out for _, size_out in vision.projector[:-1])
    return width * (tokens * columns + patches * vision.hidden_size)


class _BlockBytes(LayerBytes):
    """Bytes of one block, whose patches are a batch of one row."""

    def __init__(
        self, vision: VisionShape, recipe: Recipe, strategy: Strategy, patches: int
    ) -> None:
        heads = vision.num_attention_heads
        shape = ModelShape(
            architecture="vision",
            hidden_size=vision.hidden_size,
            intermediate_size=vision.intermediate_size,
            num_hidden_layers=vision.num_hidden_layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            head_dim=vision.hidden_size // heads,
            vocab_size=1,
        )
        super().__init__(shape, recipe, strategy, Batch(1, patches, masked=False), local=False)
        sizes, adapted = vision.linear_layers(), vision.adapted_layers(recipe.lora)
        self.groups: dict[str, Group] = {
            name: group_of(
                name, members, sizes, adapted, recipe.lora, packed=recipe.quantization.bits != 16
            )
            for name, members in _GROUPS.items()
        }
        if not vision.gated_mlp:
            self.projected = self.wide

    def passing(self) -> int:
        """What a forward holds of which nothing is kept: the MLP's, or the attention's."""
        two = 2 * self.hidden
        mlp = two + self._normed("gate_up") + self.projected + self.wide + self.hidden
        return max(mlp, two + self._normed("qkv") + self.qkv + 2 * self.query)

    def kept(self, level: int) -> int:
        """As of a decoder layer; LayerNorm has a second number a row."""
        return super().kept(level) + 2 * self._statistics * (level >= Level.ATTENTION)
