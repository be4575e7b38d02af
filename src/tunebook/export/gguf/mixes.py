"""Which type each tensor of a GGUF file gets: llama.cpp's mixes, such as Q4_K_M, as a table.

The rules are those of `llama_tensor_get_type` in llama.cpp's src/llama-quant.cpp. Knows names and
shapes of tensors; no weights, no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from tunebook.errors import RecipeInvalid


@dataclass(frozen=True)
class Network:
    """What of a model the choice of types depends on."""

    layers: int
    heads: int
    key_value_heads: int
    experts: int = 0
    tied: bool = False
    """Whether the token embedding is the output matrix too."""
    importance: bool = False
    """Whether the importance of the columns was measured."""

    @property
    def grouped(self) -> bool:
        """Whether four or more query heads share a value head, so that bits spent there cost little."""
        return self.heads // self.key_value_heads >= 4

    @property
    def is_70b(self) -> bool:
        """What llama.cpp takes for Llama 70B."""
        return self.layers == 80 and self.heads != self.key_value_heads


Rule = Callable[[int, Network], str | None]
"""Layer and network to a type; None leaves the choice to the next rule, and at last to the base."""


def _always(kind: str) -> Rule:
    return lambda _layer, _network: kind


def _first(count: int, kind: str) -> Rule:
    return lambda layer, _network: kind if layer < count else None


def _first_part(part: int, kind: str) -> Rule:
    return lambda layer, network: kind if layer < network.layers // part else None


def _more_bits(kind: str) -> Rule:
    """The first and the last eighth of the layers, and every third one between them."""

    def rule(layer: int, network: Network) -> str | None:
        eighth, layers = network.layers // 8, network.layers
        chosen = layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
        return kind if chosen else None

    return rule


def _if_grouped(kind: str) -> Rule:
    return lambda _layer, network: kind if network.grouped else None


def _if_importance(wanted: bool, rule: Rule) -> Rule:
    return lambda layer, network: rule(layer, network) if network.importance is wanted else None


@dataclass(frozen=True)
class Mix:
    """A choice of types with a name.

    Attributes:
        name: as llama.cpp spells it, such as "Q4_K_M".
        base: the type of every matrix that no rule speaks of.
        value, down, output: rules for attn_v (or the fused attn_qkv), ffn_down and attn_output.
        embedding: of the output matrix and the token embedding, if another than llama.cpp's choice.
        eight_experts_q5: whether attn_output of a model of eight experts is Q5_K.
        types: of single tensors by name, whatever the rules say; of a mix made for one model.
        like: the mix of llama.cpp that such a mix goes as.
    """

    name: str
    base: str
    value: tuple[Rule, ...] = ()
    down: tuple[Rule, ...] = ()
    output: tuple[Rule, ...] = ()
    embedding: str | None = None
    eight_experts_q5: bool = False
    types: Mapping[str, str] = field(default_factory=dict)
    like: str = ""

    @property
    def file_type(self) -> LlamaFileType:
        """`general.file_type`; Q2_K_L is no type of llama.cpp's own and goes as Q2_K."""
        name = self.like or self.name
        name = {"Q2_K_L": "Q2_K"}.get(name, name)
        return LlamaFileType["ALL_F32" if name == "F32" else f"MOSTLY_{name}"]


_Q2_K = {
    "value": (_if_grouped("Q4_K"), _always("Q3_K")),
    "down": (_always("Q3_K"),),
    "output": (_always("Q3_K"),),
    "eight_experts_q5": True,
}
_IQ4 = {
    "value": (_if_grouped("Q5_K"),),
    "down": (_if_importance(False, _first_part(8, "Q5_K")),),
    "eight_experts_q5": True,
}
MIXES: dict[str, Mix] = {
    mix.name: mix
    for mix in (
        Mix("F32", "F32"),
        Mix("F16", "F16"),
        Mix("BF16", "BF16"),
        Mix("Q8_0", "Q8_0"),
        Mix("Q6_K", "Q6_K"),
        Mix("Q5_K_M", "Q5_K", value=(_more_bits("Q6_K"),), down=(_more_bits("Q6_K"),)),
        Mix("Q5_K_S", "Q5_K"),
        Mix("Q5_1", "Q5_1"),
        Mix("Q5_0", "Q5_0", down=(_if_importance(True, _first_part(8, "Q5_1")),)),
        Mix(
            "Q4_K_M",
            "Q4_K",
            value=(_more_bits("Q6_K"),),
            down=(_more_bits("Q6_K"),),
            eight_experts_q5=True,
        ),
        Mix(
            "Q4_K_S",
            "Q4_K",
            value=(_first(4, "Q5_K"),),
            down=(_first_part(8, "Q5_K"),),
            eight_experts_q5=True,
        ),
        Mix("Q4_1", "Q4_1"),
        Mix("Q4_0", "Q4_0", down=(_if_importance(True, _first_part(8, "Q4_1")),)),
        Mix("IQ4_NL", "IQ4_NL", **_IQ4),  # type: ignore[arg-type]
        Mix("IQ4_XS", "IQ4_XS", **_IQ4),  # type: ignore[arg-type]
        Mix(
            "Q3_K_L",
            "Q3_K",
            value=(_always("Q5_K"),),
            down=(_always("Q5_K"),),
            output=(_always("Q5_K"),),
        ),
        Mix(
            "Q3_K_M",
            "Q3_K",
            value=(_first(2, "Q5_K"), _always("Q4_K")),
            down=(_first_part(16, "Q5_K"), _always("Q4_K")),
            output=(_always("Q4_K"),),
            eight_experts_q5=True,
        ),
        Mix("Q3_K_S", "Q3_K", eight_experts_q5=True),
        Mix("Q2_K", "Q2_K", **_Q2_K),  # type: ignore[arg-type]
        Mix("Q2_K_L", "Q2_K", embedding="Q8_0", **_Q2_K),  # type: ignore[arg-type]
    )
}
DYNAMIC = "dynamic"
"""In place of a mix's name: one is made for the model."""
ALIASES = {
    "not_quantized": "BF16",
    "fast_quantized": "Q8_0",
    "quantized": "Q4_K_M",
    "q5_k": "Q5_K_M",
    "q4_k": "Q4_K_M",
    "q3_k": "Q3_K_M",
}
INSTEAD = {
    **dict.fromkeys(("iq3_m", "iq3_s"), "q3_k_m"),
    **dict.fromkeys(("q3_k_xs", "iq3_xs", "iq3_xxs"), "q3_k_s"),
    **dict.fromkeys(("iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s", "q2_k_s"), "q2_k"),
}
"""Names that people know and that are not written, and what is nearest to each."""

# For a row that is no multiple of 256.
_FALLBACK = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "IQ4_XS": "IQ4_NL",
}
_NOT_QUANTIZED = ("F32", "F16", "BF16")


def mix_named(name: str) -> Mix:
    """The mix of a name or alias, in capitals or not.

    Raises:
        RecipeInvalid: no such name; what to use instead of the IQ1, IQ2 and IQ3 types is said.
    """
    key = str(name).lower().replace("-", "_")
    found = MIXES.get(ALIASES.get(key, key.upper()))
    if found is not None:
        return found
    known = ", ".join([*(name.lower() for name in MIXES), *ALIASES])
    if key in INSTEAD:
        raise RecipeInvalid(
            f"The quantization {name!r} is not written.",
            "its blocks are found by a search over grids that llama.cpp alone has, and it needs "
            "importance data to be of use.",
            f"use {INSTEAD[key]!r}, which is nearest; written are {known}.",
        )
    raise RecipeInvalid(
        f"There is no quantization {name!r}.", f"known are {known}.", "choose one of these."
    )


def mix_title(name: str) -> str:
    """The name as it is written: "Q4_K_M", or "DYNAMIC" for a mix that is made for a model.

    Raises:
        RecipeInvalid: no such name.
    """
    return DYNAMIC.upper() if str(name).lower() == DYNAMIC else mix_named(name).name


def tensor_type(name: str, shape: tuple[int, ...], mix: Mix, network: Network) -> str:
    """The type of one tensor.

    Args:
        name: in the file, such as "blk.3.attn_v.weight".
        shape: rows first, as torch has it.

    Returns:
        A ggml type, such as "Q6_K".
    """
    if name in mix.types:
        return mix.types[name]
    if not is_quantized(name, shape):
        return "F32"
    if mix.base in _NOT_QUANTIZED:
        return mix.base
    return _fitting(_wanted(name, shape[-1], mix, network), shape[-1])


def is_quantized(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is ever written in less than 32 bits: a matrix, but no norm and no router."""
    matrix = sum(size > 1 for size in shape[:-1]) > 0
    named = name.endswith("weight") and not name.endswith(("_norm.weight", "ffn_gate_inp.weight"))
    return matrix and named


def tensor_bytes(shape: tuple[int, ...], kind: str) -> int:
    """Bytes of a tensor's data, whose rows are a multiple of the type's block."""
    weights, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    count = 1
    for length in shape:
        count *= length
    return count // weights * size


def _wanted(name: str, columns: int, mix: Mix, network: Network) -> str:
    """The type by the rules, before it is known whether the rows can be cut into its blocks."""
    if name == "output.weight" or (name == "token_embd.weight" and network.tied):
        if mix.embedding is not None:
            return mix.embedding
        if columns % _block(mix.base):
            return "Q8_0"
        return "Q8_0" if mix.base == "Q8_0" else "Q6_K"
    if name == "token_embd.weight":
        return mix.embedding or mix.base
    if not name.startswith("blk."):
        return mix.base
    _, number, role, _ = name.split(".", 3)
    layer = int(number)
    if role in ("attn_v", "attn_qkv"):
        kind = _chosen(mix.value, layer, mix, network)
        if network.is_70b and kind in ("Q3_K", "Q4_K"):
            kind = "Q5_K"
        return "Q8_0" if network.experts == 8 else kind
    if role == "attn_k" and network.experts == 8:
        return "Q8_0"
    if role.startswith("ffn_down"):
        return _chosen(mix.down, layer, mix, network)
    if role == "attn_output":
        if network.experts == 8:
            return "Q5_K" if mix.eight_experts_q5 else mix.base
        return _chosen(mix.output, layer, mix, network)
    return mix.base


def _chosen(rules: tuple[Rule, ...], layer: int, mix: Mix, network: Network) -> str:
    kinds = (rule(layer, network) for rule in rules)
    return next((kind for kind in kinds if kind is not None), mix.base)


def _fitting(kind: str, columns: int) -> str:
    """The type itself, or what llama.cpp falls back to for rows that its blocks do not divide."""
    if columns % _block(kind):
        kind = _FALLBACK.get(kind, kind)
    return "F16" if columns % _block(kind) else kind


def _block(kind: str) -> int:
    return GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0]
