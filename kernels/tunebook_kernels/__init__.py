"""Fused operations for training: Triton kernels with a plain-torch reference beside each.

Needs torch and, where it exists, triton; knows no model, no trainer and no `tunebook`.
"""

from tunebook_kernels._launch import can_launch, triton_runs_on
from tunebook_kernels.ahead import compile_ahead, start_up
from tunebook_kernels.attention import (
    flash_attention,
    flash_attention_backward,
    flash_attention_forward,
    flash_attention_reference,
    takes_attention,
)
from tunebook_kernels.cross_entropy_rows import Head
from tunebook_kernels.gated import (
    gated_backward,
    gated_forward,
    geglu,
    geglu_reference,
    swiglu,
    swiglu_reference,
)
from tunebook_kernels.layer_norm import (
    layer_norm,
    layer_norm_backward,
    layer_norm_forward,
    layer_norm_reference,
)
from tunebook_kernels.linear_cross_entropy import (
    LinearCrossEntropy,
    gradient_scale,
    linear_cross_entropy,
    linear_cross_entropy_backward,
    linear_cross_entropy_backward_of_head,
    linear_cross_entropy_forward,
    linear_cross_entropy_reference,
    tokens_per_chunk,
)
from tunebook_kernels.nf4 import Nested, Packed4bit, Packed8bit, dequantize_4bit, dequantize_8bit
from tunebook_kernels.qk_norm_rope import (
    qk_norm_rope,
    qk_norm_rope_backward,
    qk_norm_rope_forward,
    qk_norm_rope_reference,
)
from tunebook_kernels.rms_norm import (
    add_rms_norm,
    add_rms_norm_reference,
    rms_norm,
    rms_norm_backward,
    rms_norm_forward,
    rms_norm_reference,
)
from tunebook_kernels.rope import apply_rope, apply_rope_reference, rope_backward, rope_forward

__all__ = [
    "Head",
    "LinearCrossEntropy",
    "Nested",
    "Packed4bit",
    "Packed8bit",
    "add_rms_norm",
    "add_rms_norm_reference",
    "apply_rope",
    "apply_rope_reference",
    "can_launch",
    "compile_ahead",
    "dequantize_4bit",
    "dequantize_8bit",
    "flash_attention",
    "flash_attention_backward",
    "flash_attention_forward",
    "flash_attention_reference",
    "gated_backward",
    "gated_forward",
    "geglu",
    "geglu_reference",
    "gradient_scale",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "layer_norm_reference",
    "linear_cross_entropy",
    "linear_cross_entropy_backward",
    "linear_cross_entropy_backward_of_head",
    "linear_cross_entropy_forward",
    "linear_cross_entropy_reference",
    "qk_norm_rope",
    "qk_norm_rope_backward",
    "qk_norm_rope_forward",
    "qk_norm_rope_reference",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_forward",
    "rms_norm_reference",
    "rope_backward",
    "rope_forward",
    "start_up",
    "swiglu",
    "swiglu_reference",
    "takes_attention",
    "tokens_per_chunk",
    "triton_runs_on",
]
