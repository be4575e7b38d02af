"""Every kernel compiles for every generation of GPU, and fits its shared memory; needs no GPU."""

from __future__ import annotations

import pytest

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from tunebook_kernels import _launch  # noqa: E402
from tunebook_kernels.layer_norm import (  # noqa: E402
    layer_norm_backward_kernel,
    layer_norm_forward_kernel,
)
from tunebook_kernels.qk_norm_rope import (  # noqa: E402
    qk_norm_rope_backward_kernel,
    qk_norm_rope_forward_kernel,
)
from tunebook_kernels.rms_norm import (  # noqa: E402
    rms_norm_backward_kernel,
    rms_norm_forward_kernel,
)
from tunebook_kernels.rope import rope_kernel, tile_of_heads  # noqa: E402
from tunebook_kernels.swiglu import swiglu_backward_kernel, swiglu_forward_kernel  # noqa: E402

FLOAT32 = ("mean_ptr", "rstd_ptr", "dweight_ptr", "dbias_ptr")
CAPABILITIES = [75, 80, 89, 90, 100]
T4_SHARED_MEMORY = 64 * 1024
TILE = {"ROWS": 1, "BLOCK": 4096}
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
    "swiglu_forward": (swiglu_forward_kernel, {"ROWS": 1, "BLOCK": 2048}),
    "swiglu_backward": (swiglu_backward_kernel, {"ROWS": 1, "BLOCK": 2048}),
}


def signature(kernel, constants: dict[str, object], dtype: str) -> dict[str, str]:
    types = {}
    for name in kernel.arg_names:
        if name in constants:
            types[name] = "constexpr"
        elif name.endswith("_ptr"):
            types[name] = "*fp32" if name in FLOAT32 else f"*{dtype}"
        else:
            types[name] = "fp32" if name == "eps" else "i32"
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
