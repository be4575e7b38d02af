"""The shape of a decoder model: its sizes, the linear layers they imply, and parameter counts.

Knows the fields of a `config.json`; knows no weights, no torch and nothing of what a size costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tunebook.errors import ModelInvalid
from tunebook.models.vision_shape import VisionShape
from tunebook.recipe import LoraPart

_REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
)
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_FOUR_NORMS = ("gemma2", "gemma3", "gemma3_text", "glm4")
_HEAD_NORMS = ("qwen3", "qwen3_vl_text", "gemma3", "gemma3_text")
_FULL_NORMS = ("olmo2", "olmo3")
_BIASED_QKV = ("qwen2", "qwen2_vl_text", "qwen2_5_vl_text")
_TIED_INSIDE = ("qwen2_vl", "qwen2_5_vl", "llava", "llava_next")
_TIED_BY_DEFAULT = ("gemma", "gemma2", "gemma3", "gemma3_text", "cohere", "cohere2")
_FUSED = ("phi3",)
_PARTS_OF = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
_WITHOUT_NORM_WEIGHTS = ("olmo",)
_FLAT = ("qwen2_vl", "qwen2_5_vl")  # published with the text part's sizes beside the vision config
# what transformers takes where a nested text config leaves a size out
_LEFT_OUT: dict[str, dict[str, Any]] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
    },
    "mistral": {
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32_000,
        "max_position_embeddings": 131_072,
    },
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32_000,
        "max_position_embeddings": 2048,
    },
}
_IMAGE_ROWS = 8  # that Llama's vision models have in the embedding beyond the vocabulary


class ModelShape(BaseModel):
    """Sizes of a decoder with gated MLP and (grouped-query) attention; immutable."""

    model_config = ConfigDict(frozen=True)

    architecture: str = Field(description='`model_type` of the text decoder, such as "llama".')
    hidden_size: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1)
    num_attention_heads: int = Field(ge=1)
    num_key_value_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    vocab_size: int = Field(ge=1)
    tie_word_embeddings: bool = False
    attention_bias: bool = Field(default=False, description="Biases on q, k and v.")
    attention_output_bias: bool = Field(default=False, description="Bias on o.")
    mlp_bias: bool = Field(default=False, description="Biases on gate, up and down.")
    max_position_embeddings: int = Field(default=2048, ge=1)
    norms_per_layer: int = Field(default=2, description="Norms over the hidden size in one layer.")
    qk_norm: Literal["none", "head", "full"] = Field(
        default="none", description="Norm on queries and keys: of each head, or of all at once."
    )
    norm_weights: bool = Field(default=True, description="False where norms have no parameters.")
    sliding_window: int | None = Field(default=None, description="Tokens a local layer looks back.")
    local_layers: int = Field(default=0, description="How many layers use the sliding window.")
    fused_projections: bool = Field(
        default=False, description="The file stores q|k|v and gate|up as one matrix each (Phi-3)."
    )
    attention_softcap: bool = Field(
        default=False, description="Scores pass a tanh, which few attention kernels know."
    )
    logit_softcap: bool = Field(default=False, description="Logits pass a tanh.")
    extra_parameters: int = Field(default=0, description="Frozen 16-bit rest of the text part.")
    vision: VisionShape | None = Field(default=None, description="Of models that take pictures.")

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], pictures: Mapping[str, Any] | None = None
    ) -> ModelShape:
        """The shape in a Hugging Face `config.json`; a nested `text_config` is followed.

        Args:
            pictures: the `preprocessor_config.json` of a model that takes pictures, where it is known.

        Raises:
            ModelInvalid: it is not a dense decoder with a gated MLP, so it cannot be counted.
        """
        text = _text_config(config)
        kind = str(text.get("model_type") or "unknown")
        _refuse_what_cannot_be_counted(config, text, kind)
        heads = int(text["num_attention_heads"])
        bias = bool(text.get("attention_bias", kind in _BIASED_QKV))
        tied = _tied(config, text)
        window, local = _sliding(text, kind)
        return cls(
            architecture=kind,
            hidden_size=text["hidden_size"],
            intermediate_size=text["intermediate_size"],
            num_hidden_layers=text["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=text.get("num_key_value_heads") or heads,
            head_dim=text.get("head_dim") or text["hidden_size"] // heads,
            vocab_size=text["vocab_size"],
            tie_word_embeddings=kind in _TIED_BY_DEFAULT if tied is None else bool(tied),
            attention_bias=bias,
            attention_output_bias=bias and kind not in _BIASED_QKV,
            mlp_bias=bool(text.get("mlp_bias", False)),
            max_position_embeddings=text.get("max_position_embeddings") or 2048,
            norms_per_layer=4 if kind in _FOUR_NORMS else 1 if kind == "cohere" else 2,
            qk_norm=_qk_norm(text, kind),
            norm_weights=kind not in _WITHOUT_NORM_WEIGHTS,
            sliding_window=window,
            local_layers=local,
            fused_projections=kind in _FUSED,
            attention_softcap=bool(text.get("attn_logit_softcapping")),
            logit_softcap=bool(text.get("final_logit_softcapping")),
            extra_parameters=_cross_attention(text) if kind == "mllama_text_model" else 0,
            vision=VisionShape.from_config(config, pictures),
        )

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_size(self) -> int:
        """Width of all key (or value) heads together."""
        return self.num_key_value_heads * self.head_dim

    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one decoder layer: name to (in, out).

        A model that stores q|k|v or gate|up fused is reported unfused; the sizes add up.
        """
        hidden, query, key, wide = (
            self.hidden_size,
            self.query_size,
            self.key_size,
            self.intermediate_size,
        )
        return {
            "q_proj": (hidden, query),
            "k_proj": (hidden, key),
            "v_proj": (hidden, key),
            "o_proj": (query, hidden),
            "gate_proj": (hidden, wide),
            "up_proj": (hidden, wide),
            "down_proj": (wide, hidden),
        }

    def linear_parameters(self) -> int:
        """Weights of all linear layers of all decoder layers, without biases and head."""
        return self.num_hidden_layers * sum(i * o for i, o in self.linear_layers().values())

    def embedding_parameters(self) -> int:
        """Weights of the input embedding and, if it is a matrix of its own, the output head."""
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)

    def small_parameters(self) -> int:
        """Weights of norms and biases."""
        query, key, hidden = self.query_size, self.key_size, self.hidden_size
        norms = 0
        if self.norm_weights:
            qk = {"none": 0, "head": 2 * self.head_dim, "full": query + key}[self.qk_norm]
            norms = self.num_hidden_layers * (self.norms_per_layer * hidden + qk) + hidden
        biases = (query + 2 * key) * self.attention_bias + hidden * self.attention_output_bias
        biases += (2 * self.intermediate_size + hidden) * self.mlp_bias
        return norms + self.num_hidden_layers * biases

    def total_parameters(self) -> int:
        """All weights of the base model, a tied matrix counted once."""
        return (
            self.linear_parameters()
            + self.embedding_parameters()
            + self.small_parameters()
            + self.extra_parameters
            + (self.vision.parameters if self.vision else 0)
        )

    def adapted_layers(self, lora: LoraPart) -> dict[str, tuple[int, int]]:
        """The modules of one decoder layer that `lora` targets: name to (in, out).

        Those of a vision tower are told by `vision.adapted_layers`. Where projections are stored
        fused, `qkv_proj` and `gate_up_proj` are the modules, with one adapter each, and the name of
        any of their parts means them.
        """
        layers = self.linear_layers()
        if self.fused_projections:
            layers = {
                "qkv_proj": (self.hidden_size, self.query_size + 2 * self.key_size),
                "o_proj": layers["o_proj"],
                "gate_up_proj": (self.hidden_size, 2 * self.intermediate_size),
                "down_proj": layers["down_proj"],
            }
        if self.vision is not None and not lora.language_layers:
            return {}
        switched = {"attention": lora.attention_modules, "mlp": lora.mlp_modules}
        layers = {name: size for name, size in layers.items() if switched[_kind(name)]}
        if lora.target_modules == "all-linear":
            return layers
        wanted = fused_names(
            [target.rsplit(".", 1)[-1] for target in lora.target_modules], layers.__contains__
        )
        return {name: size for name, size in layers.items() if name in wanted}

    def lora_parameters(self, lora: LoraPart) -> int:
        """Weights of the adapters, a vision tower's too: rank times (in + out) of every layer."""
        sizes = self.adapted_layers(lora).values()
        language = self.num_hidden_layers * lora.r * sum(i + o for i, o in sizes)
        return language + (self.vision.lora_parameters(lora) if self.vision else 0)


def parts_of_fused(name: str) -> tuple[str, ...]:
    """The names that a fused layer stands for; of any other layer its own."""
    return _PARTS_OF.get(name, (name,))


def fused_names(wanted: Iterable[str], exists: Callable[[str], bool]) -> list[str]:
    """Names of layers with those replaced that a model has only as a part of a fused one.

    Args:
        wanted: such as "q_proj" or "layers.0.self_attn.q_proj".
        exists: whether the model has a layer of that name.
    """
    found = {}  # a set in order
    for name in wanted:
        path, dot, last = name.rpartition(".")
        fused = next((whole for whole, parts in _PARTS_OF.items() if last in parts), last)
        whole = f"{path}{dot}{fused}"
        found[whole if exists(whole) and not exists(name) else name] = True
    return list(found)


def _kind(name: str) -> str:
    return "attention" if name in ("qkv_proj", "q_proj", "k_proj", "v_proj", "o_proj") else "mlp"


def _text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the text part, with those that a nested config leaves out."""
    nested = config.get("text_config")
    if nested:
        kind = nested.get("model_type") or ("llama" if "vision_config" in config else "")
        return {
            **config,
            **_LEFT_OUT.get(kind, {}),
            **nested,
            "model_type": kind or config["model_type"],
        }
    kind = config.get("model_type")
    return {**config, "model_type": f"{kind}_text"} if kind in _FLAT else dict(config)


def _tied(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool | None:
    """Whether head and embedding are one matrix; None where the config leaves it to the family.

    Of nested configs the outer one decides since transformers 5; older files say it inside.
    """
    if config.get("model_type") == "mllama":  # its embedding has more rows than its head
        return False
    outer = config.get("tie_word_embeddings")
    inner = text.get("tie_word_embeddings")
    if "vision_config" in config and outer is not None:
        return bool(outer) or (bool(inner) and config.get("model_type") in _TIED_INSIDE)
    found: bool | None = inner if inner is not None else outer
    return found


def _cross_attention(text: Mapping[str, Any]) -> int:
    """What layers that look at pictures have more: norms of heads and two gates; and image tokens' rows."""
    heads = int(text["num_attention_heads"])
    head = text.get("head_dim") or int(text["hidden_size"]) // heads
    layers = len(text.get("cross_attention_layers") or (3, 8, 13, 18, 23, 28, 33, 38))
    return layers * (2 * head + 2) + _IMAGE_ROWS * int(text["hidden_size"])


def _refuse_what_cannot_be_counted(
    config: Mapping[str, Any], text: dict[str, Any], kind: str
) -> None:
    missing = [name for name in _REQUIRED if not isinstance(text.get(name), int)]
    reason = ""
    if missing:
        reason = f"its config has no {', '.join(missing)}"
    elif config.get("is_encoder_decoder"):
        reason = "it is an encoder-decoder model"
    elif any((text.get(name) or 0) > 1 for name in _EXPERTS):
        reason = "it is a mixture of experts, which is not supported yet"
    if reason:
        raise ModelInvalid(
            f"The model type {kind!r} cannot be planned.",
            f"{reason}.",
            "choose a dense decoder model, such as those of Llama, Qwen, Mistral, Gemma or Phi.",
        )


def _qk_norm(text: dict[str, Any], kind: str) -> Literal["none", "head", "full"]:
    if kind in _FULL_NORMS:
        return "full"
    return "head" if kind in _HEAD_NORMS or text.get("use_qk_norm") else "none"


def _sliding(text: dict[str, Any], kind: str) -> tuple[int | None, int]:
    """The window and the number of layers that use it."""
    window = text.get("sliding_window")
    layers = int(text["num_hidden_layers"])
    if not window or text.get("use_sliding_window") is False:
        return None, 0
    types = text.get("layer_types")
    if types:
        return int(window), sum("sliding" in str(name) for name in types)
    if kind == "gemma2":
        return int(window), (layers + 1) // 2
    if kind in ("gemma3", "gemma3_text"):
        return int(window), layers - layers // int(text.get("sliding_window_pattern") or 6)
    return (int(window), layers) if kind in ("mistral", "phi3") else (None, 0)
