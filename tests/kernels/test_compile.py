"""Every kernel compiles for every generation of GPU, and fits its shared memory; needs no GPU."""

from __future__ import annotations

import pytest

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from tunebook_kernels import _launch  # noqa: E402
from tunebook_kernels.activation import (  # noqa: E402
    activation_backward_kernel,
    activation_forward_kernel,
)
from tunebook_kernels.attention import attention_tile  # noqa: E402
from tunebook_kernels.attention_kernels import (  # noqa: E402
    VARY,
    attention_dk_dv_kernel,
    attention_dq_kernel,
    attention_forward_kernel,
)
from tunebook_kernels.cross_entropy_rows import cross_entropy_rows_kernel  # noqa: E402
from tunebook_kernels.gated import gated_backward_kernel, gated_forward_kernel  # noqa: E402
from tunebook_kernels.layer_norm import (  # noqa: E402
    layer_norm_backward_kernel,
    layer_norm_forward_kernel,
)
from tunebook_kernels.nf4 import dequantize_4bit_kernel, dequantize_8bit_kernel  # noqa: E402
from tunebook_kernels.qk_norm_rope import (  # noqa: E402
    qk_norm_rope_backward_kernel,
    qk_norm_rope_forward_kernel,
)
from tunebook_kernels.rms_norm import (  # noqa: E402
    rms_norm_backward_kernel,
    rms_norm_forward_kernel,
)
from tunebook_kernels.rope import rope_kernel, tile_of_heads  # noqa: E402

CAPABILITIES = [75, 80, 89, 90, 100]
T4_SHARED_MEMORY = 64 * 1024
TILE = {"ROWS": 1, "BLOCK": 4096}
OF_ROWS = {"SMOOTHING": 0.0, "HAS_TOKENS": False, "NEEDS_GRADIENT": True, "N_COLS": 128256}
OF_GATED = {"ROWS": 1, "BLOCK": 2048, "UNIT": 8}
OF_4_BIT = {"PER_ABSMAX": 8, "PER_ABSMAX2": 256, "UNIT": 8, "WORDS": 512}
TYPES = {
    **dict.fromkeys(["mean_ptr", "rstd_ptr", "dweight_ptr", "dbias_ptr"], "*fp32"),
    **dict.fromkeys(["scale_ptr", "loss_ptr", "entropy_ptr"], "*fp32"),
    **dict.fromkeys(["labels_ptr", "tokens_ptr"], "*i64"),
    **dict.fromkeys(["code_ptr", "code2_ptr", "absmax2_ptr", "offset_ptr"], "*fp32"),
    **dict.fromkeys(["packed_ptr", "absmax_ptr", "correct_ptr"], "*u8"),
    "quantized_ptr": "*i8",
    "eps": "fp32",
}
# 32 heads of q, 8 of k and of v; a quarter of each head passes through.
HEADS = {name: size for name, size in tile_of_heads(48, 128, 96).items() if name.isupper()}
KERNELS = {
    "rms_norm_forward": (
        rms_norm_forward_kernel,
        {**TILE, "OFFSET": 0.0, "HAS_RESIDUAL": True},
    ),
    "rms_norm_backward": (
        rms_norm_backward_kernel,
        {**TILE, "OFFSET": 1.0, "HAS_DRESIDUAL": True, "NEEDS_DWEIGHT": True},
    ),
    "layer_norm_forward": (
        layer_norm_forward_kernel,
        {**TILE, "HAS_RESIDUAL": True, "HAS_WEIGHT": True, "HAS_BIAS": True},
    ),
    "layer_norm_backward": (
        layer_norm_backward_kernel,
        {
            **TILE,
            "HAS_WEIGHT": True,
            "HAS_DRESIDUAL": True,
            "NEEDS_DWEIGHT": True,
            "NEEDS_DBIAS": True,
        },
    ),
    "rope_forward": (
        rope_kernel,
        {**HEADS, "Q_HEADS": 40, "K_HEADS": 0, "V_HEADS": 0, "INVERSE": False},
    ),
    "rope_backward": (
        rope_kernel,
        {**HEADS, "Q_HEADS": 32, "K_HEADS": 8, "V_HEADS": 8, "INVERSE": True},
    ),
    "qk_norm_rope_forward": (
        qk_norm_rope_forward_kernel,
        {**HEADS, "Q_HEADS": 32, "KV_HEADS": 8, "OFFSET": 0.0},
    ),
    "qk_norm_rope_backward": (
        qk_norm_rope_backward_kernel,
        {**HEADS, "Q_HEADS": 32, "KV_HEADS": 8, "OFFSET": 1.0, "NEEDS_DWEIGHT": True},
    ),
    **{
        f"{activation}_forward": (gated_forward_kernel, {**OF_GATED, "ACTIVATION": activation})
        for activation in ("silu", "gelu", "gelu_tanh")
    },
    **{
        f"{activation}_backward": (
            gated_backward_kernel,
            {**OF_GATED, "ACTIVATION": activation, "REBUILD": True},
        )
        for activation in ("silu", "gelu", "gelu_tanh")
    },
    "quick_gelu_alone_forward": (
        activation_forward_kernel,
        {**OF_GATED, "ACTIVATION": "quick_gelu"},
    ),
    "gelu_alone_backward": (
        activation_backward_kernel,
        {**OF_GATED, "ACTIVATION": "gelu", "REBUILD": True},
    ),
    "dequantize_4bit": (dequantize_4bit_kernel, {**OF_4_BIT, "NESTED": True}),
    "dequantize_8bit": (dequantize_8bit_kernel, {"ROWS": 1, "BLOCK": 4096, "UNIT": 8}),
    "cross_entropy": (
        cross_entropy_rows_kernel,
        {**OF_ROWS, "SOFTCAP": 0.0, "LOGIT_SCALE": 1.0, "BLOCK": 4096},
    ),
    "cross_entropy_of_all_options": (
        cross_entropy_rows_kernel,
        {
            **OF_ROWS,
            "SOFTCAP": 30.0,
            "LOGIT_SCALE": 0.5,
            "SMOOTHING": 0.1,
            "HAS_TOKENS": True,
            "BLOCK": 4096,
        },
    ),
}


def signature(kernel, constants: dict[str, object], dtype: str) -> dict[str, str]:
    types = {}
    for name in kernel.arg_names:
        if name in constants:
            types[name] = "constexpr"
        else:
            types[name] = TYPES.get(name, f"*{dtype}" if name.endswith("_ptr") else "i32")
    return types


@pytest.mark.skipif(_launch.INTERPRETED, reason="interpreted kernels are not compiled")
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_compiles(name: str, capability: int):
    kernel, constants = KERNELS[name]
    dtype = "fp16" if capability < 80 else "bf16"
    source = ASTSource(kernel, signature(kernel, constants, dtype), constants)
    compiled = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options=_launch.options_for(4096)
    )
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= T4_SHARED_MEMORY


# Kernels with products: not for Turing, which triton gives no tensor cores.
SHARED_MEMORY = {80: 163, 89: 99, 90: 227, 100: 227}  # KiB
ATTENTION = {
    "forward": attention_forward_kernel,
    "dq": attention_dq_kernel,
    "dk_dv": attention_dk_dv_kernel,
}


@pytest.mark.skipif(_launch.INTERPRETED, reason="interpreted kernels are not compiled")
@pytest.mark.parametrize("capability", SHARED_MEMORY)
@pytest.mark.parametrize(("head_dim", "softcap"), [(96, 0.0), (256, 50.0)])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_compiles_to_products_of_tiles(
    name: str, head_dim: int, softcap: float, capability: int
):
    kernel, room = ATTENTION[name], SHARED_MEMORY[capability]
    tile = attention_tile(name, head_dim, 2, room)
    options = {key: value for key, value in tile.items() if not key.isupper()}
    constants: dict[str, object] = {key: value for key, value in tile.items() if key.isupper()}
    constants |= {"HEADS": 8, "GROUP": 2, "HEAD_DIM": head_dim, "SCALE": 0.0625}
    constants |= {"SOFTCAP": softcap, "PACKED": True, "EXACT": False}
    types = signature(kernel, constants, "bf16")
    types |= {key: "*fp32" for key in ("lse_ptr", "delta_ptr") if key in types}
    types["starts_ptr"] = "*i32"
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, key in enumerate(kernel.arg_names)
        if types[key] != "constexpr" and key not in VARY
    }
    compiled = triton.compile(
        ASTSource(kernel, types, constants, aligned),
        target=GPUTarget("cuda", capability, 32),
        options=options,
    )
    assert compiled.metadata.shared <= room * 1024
    code = compiled.asm["ptx"]
    assert "mma" in code
    assert "cp.async" in code, "tiles are not loaded ahead"
