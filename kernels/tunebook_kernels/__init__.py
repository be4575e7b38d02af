"""Fused operations for training: Triton kernels with a plain-torch reference beside each.

Needs torch and, where it exists, triton; knows no model, no trainer and no `tunebook`.
"""

from tunebook_kernels._launch import can_launch, triton_runs_on
from tunebook_kernels.gated import (
    gated_backward,
    gated_forward,
    geglu,
    geglu_reference,
    swiglu,
    swiglu_reference,
)
from tunebook_kernels.nf4 import Nested, Packed4bit, dequantize_4bit, dequantize_8bit
from tunebook_kernels.rms_norm import rms_norm, rms_norm_reference

__all__ = [
    "Nested",
    "Packed4bit",
    "can_launch",
    "dequantize_4bit",
    "dequantize_8bit",
    "gated_backward",
    "gated_forward",
    "geglu",
    "geglu_reference",
    "rms_norm",
    "rms_norm_reference",
    "swiglu",
    "swiglu_reference",
    "triton_runs_on",
]
