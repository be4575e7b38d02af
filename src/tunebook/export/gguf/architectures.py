"""What llama.cpp wants of each model family: its name, how tensors are turned, what is stated.

One row a family, read off llama.cpp's conversion scripts and graphs (conversion/*.py, src/models).
Names of tensors are the `gguf` package's own map. Knows configurations and shapes; no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunebook.errors import ModelInvalid
from tunebook.export.gguf.mixes import Network

if TYPE_CHECKING:
    import torch

Turn = Callable[["torch.Tensor", Any], "torch.Tensor"]
"""(merged tensor, text configuration) to the tensor as the file holds it."""


def _paired(heads: str) -> Turn:
    """Rows of each head from halves (transformers' rotary) to neighbours (llama.cpp's).

    (heads * d, ...) is seen as (heads, 2, d / 2, ...) and its axes 1 and 2 are swapped.
    """

    def turn(tensor: torch.Tensor, config: Any) -> torch.Tensor:
        count = getattr(config, heads)
        split = tensor.reshape(count, 2, tensor.shape[0] // count // 2, *tensor.shape[1:])
        return split.transpose(1, 2).reshape(tensor.shape)

    return turn


def _plus_one(tensor: torch.Tensor, config: Any) -> torch.Tensor:
    """Gemma's norms multiply by 1 + weight; llama.cpp's by the weight."""
    return tensor.float() + 1


@dataclass(frozen=True)
class Architecture:
    """One family.

    Attributes:
        name: `general.architecture`, which prefixes the keys of the metadata.
        turns: by the end of a module's name, how its tensors are turned; others stay as they are.
        rope: kinds of rotary scaling that its graph knows.
        activation: the only one that its graph computes.
        stated: further metadata: key without prefix to a field of the configuration.
        windows: whether some of its layers look back over a sliding window, which is stated.
        required: fields with the only values that its graph computes.
        head_scale: whether attention is scaled as `query_pre_attn_scalar` says, not by head_dim.
    """

    name: str
    turns: Mapping[str, Turn] = field(default_factory=dict)
    rope: frozenset[str] = frozenset({"linear", "yarn"})
    activation: str = "silu"
    stated: Mapping[str, str] = field(default_factory=dict)
    windows: bool = False
    required: Mapping[str, Any] = field(default_factory=dict)
    head_scale: bool = False


_PAIRED = {"q_proj": _paired("num_attention_heads"), "k_proj": _paired("num_key_value_heads")}
_ROPE_LLAMA = frozenset({"linear", "yarn", "llama3"})
_LLAMA = Architecture("llama", turns=_PAIRED, rope=_ROPE_LLAMA)
_EXPERTS = {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"}
_GEMMA: dict[str, Any] = {"turns": {"norm": _plus_one}, "activation": "gelu_pytorch_tanh"}
_FINAL_SOFTCAP = {"final_logit_softcapping": "final_logit_softcapping"}

ARCHITECTURES: dict[str, Architecture] = {  # by `model_type`
    "llama": _LLAMA,
    "mistral": _LLAMA,  # Nemo and Ministral 8B too
    "mixtral": Architecture("llama", turns=_PAIRED, rope=_ROPE_LLAMA, stated=_EXPERTS),
    "qwen2": Architecture("qwen2"),  # 2.5 too
    "qwen3": Architecture("qwen3"),
    "qwen3_moe": Architecture(
        "qwen3moe",
        stated={**_EXPERTS, "expert_feed_forward_length": "moe_intermediate_size"},
        required={"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    "gemma": Architecture("gemma", **_GEMMA),
    "gemma2": Architecture(
        "gemma2",
        **_GEMMA,
        stated={**_FINAL_SOFTCAP, "attn_logit_softcapping": "attn_logit_softcapping"},
        windows=True,
        head_scale=True,
    ),
    "gemma3_text": Architecture(
        "gemma3", **_GEMMA, stated=_FINAL_SOFTCAP, windows=True, head_scale=True
    ),
    "phi3": Architecture("phi3", rope=frozenset({"longrope"})),  # 3.5 and 4 too
    "qwen2_vl_text": Architecture("qwen2vl"),
    "qwen2_5_vl_text": Architecture("qwen2vl"),
    "qwen3_vl_text": Architecture("qwen3vl"),
}

# Where llama.cpp scales attention by hidden_size / heads: the 27B models, told by their layers.
_SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}


def architecture_of(config: Any) -> tuple[Architecture, Any]:
    """The family of a model and the configuration of its text decoder.

    Args:
        config: a transformers configuration; of a model with a vision tower, the text part counts.

    Raises:
        ModelInvalid: no such family, or a variant of it that llama.cpp computes otherwise.
    """
    text = config.get_text_config()
    found = ARCHITECTURES.get(text.model_type)
    if found is None:
        raise ModelInvalid(
            f"Models of type {text.model_type!r} cannot be written as GGUF yet.",
            f"known are {', '.join(sorted(ARCHITECTURES))}.",
            "export 'merged_16bit', and convert that with llama.cpp's convert_hf_to_gguf.py if it "
            "knows the type.",
        )
    for name, (value, wanted) in _differences(found, text).items():
        raise ModelInvalid(
            f"This {text.model_type} model cannot be written as GGUF.",
            f"its config has {name}={value!r}, and llama.cpp computes it as if it were {wanted!r}.",
            "export 'merged_16bit', and serve that with vLLM or transformers.",
        )
    return found, text


def _differences(architecture: Architecture, text: Any) -> dict[str, tuple[Any, Any]]:
    """Fields of the configuration that llama.cpp would not follow, with what it takes for granted."""
    wanted = dict(architecture.required)
    activation = "hidden_act" if getattr(text, "hidden_act", None) else "hidden_activation"
    wanted[activation] = architecture.activation
    if architecture.head_scale:
        by_width = _SCALED_BY_WIDTH.get(architecture.name) == text.num_hidden_layers
        heads = text.num_attention_heads
        wanted["query_pre_attn_scalar"] = text.hidden_size // heads if by_width else text.head_dim
    if architecture.name in ("qwen2", "qwen2vl") or architecture.name.startswith("qwen3"):
        wanted["use_sliding_window"] = False
    different = {
        name: (getattr(text, name, value), value)
        for name, value in wanted.items()
        if getattr(text, name, value) != value
    }
    kind = rope_of(text).get("rope_type", "default")
    if kind not in architecture.rope | {"default"}:
        different["rope_type"] = (kind, "default")
    return different


def notes_on(architecture: Architecture, text: Any) -> tuple[str, ...]:
    """Sentences on what llama.cpp does otherwise than the model, where that is no error."""
    window = getattr(text, "sliding_window", None)
    if architecture.windows or not window or window >= text.max_position_embeddings:
        return ()
    if getattr(text, "use_sliding_window", True) is False:
        return ()
    return (
        f"The model looks back over {window:,} tokens, and llama.cpp over all of them: what it "
        "writes behind that many differs.",
    )


def head_dim(text: Any) -> int:
    """Width of one attention head."""
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(width)


def rope_of(text: Any, kind: str = "full_attention") -> dict[str, Any]:
    """The rotary parameters; of one kind of layers, where they differ."""
    parameters: dict[str, Any] = text.rope_parameters or {}
    found: dict[str, Any] = parameters.get(kind, parameters)
    return found


def network_of(text: Any, *, tied: bool, importance: bool = False) -> Network:
    """What the choice of types depends on.

    Args:
        text: configuration of the text decoder.
        tied: whether the file will hold no output matrix of its own.
        importance: whether the importance of the columns was measured.
    """
    return Network(
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        key_value_heads=text.num_key_value_heads,
        experts=getattr(text, "num_local_experts", 0) or 0,
        tied=tied,
        importance=importance,
    )
