"""Forecast against truth: one real training step of small random models, measured and predicted.

Builds each model with transformers, bitsandbytes and PEFT, runs TRL's fused loss, forward, backward
and AdamW, and prints resident and peak bytes and seconds beside the forecast. On the CPU the peak
comes from the allocator's events, on CUDA from its own peak. Times are the best of two updates.

    python benchmarks/forecast_error.py [--json FILE] [--device cpu|cuda] [--only NAME]
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunebook.models.shape import ModelShape
from tunebook.plan import Hardware, Strategy
from tunebook.plan.memory import Batch, memory_parts, resident_parts
from tunebook.plan.timing import seconds_per_step
from tunebook.recipe import Recipe

TINY = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "heads": (4, 2, 64),
    "vocab_size": 2048,
}
WIDE = {
    "hidden_size": 256,
    "intermediate_size": 6144,
    "num_hidden_layers": 1,
    "heads": (4, 2, 64),
    "vocab_size": 256,
}
DEEP = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "heads": (8, 2, 64),
    "vocab_size": 8192,
}
BIG_VOCABULARY = {
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "heads": (6, 6, 64),
    "vocab_size": 40000,
}


@dataclass(frozen=True)
class Case:
    """One configuration; `padded` gives the first row half the length."""

    name: str
    kind: str
    sizes: str
    bits: int
    rows: int
    length: int
    recompute: bool
    padded: bool = False


SIZES = {"tiny": TINY, "wide": WIDE, "deep": DEEP, "vocab": BIG_VOCABULARY}
CASES = [
    Case("llama tiny", "llama", "tiny", 4, 2, 128, False),
    Case("llama tiny", "llama", "tiny", 4, 2, 128, True),
    Case("llama tiny padded", "llama", "tiny", 4, 4, 128, False, True),
    Case("llama tiny long", "llama", "tiny", 4, 1, 512, False),
    Case("llama tiny 8 bit", "llama", "tiny", 8, 2, 128, False),
    Case("llama tiny 16 bit", "llama", "tiny", 16, 2, 128, False),
    Case("llama tiny batch 8", "llama", "tiny", 16, 8, 128, True),
    Case("llama wide", "llama", "wide", 4, 1, 128, False),
    Case("llama wide", "llama", "wide", 4, 1, 128, True),
    Case("llama wide short", "llama", "wide", 4, 1, 32, True),
    Case("qwen2 deep", "qwen2", "deep", 4, 2, 128, False),
    Case("qwen3 deep", "qwen3", "deep", 4, 2, 128, False),
    Case("qwen3 deep", "qwen3", "deep", 16, 1, 256, True),
    Case("gemma2 tiny", "gemma2", "tiny", 4, 2, 128, False),
    Case("mistral vocab", "mistral", "vocab", 4, 1, 128, False),
    Case("phi3 tiny", "phi3", "tiny", 4, 2, 128, False),
]


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    _quiet()
    hardware = Hardware.detect() if options.device == "cuda" else Hardware.of("cpu")
    print(_versions(hardware))
    header = f"{'case':22}{'bits':>5}{'b x S':>9}{'gc':>4}"
    print(f"{header}  {'resident MiB':>20}  {'peak MiB':>20}  {'ms':>20}")
    rows = []
    for case in CASES:
        if options.only in case.name:
            rows.append(measure(case, hardware))
            print(_line(rows[-1]), flush=True)
    errors = [abs(row["peak_error"]) for row in rows]
    print(f"peak: mean error {statistics.mean(errors):.1%}, largest {max(errors):.1%}")
    if options.json:
        options.json.write_text(
            json.dumps({"versions": _versions(hardware), "rows": rows}, indent=2)
        )


def measure(case: Case, hardware: Hardware) -> dict[str, Any]:
    """One case beside its forecast: bytes and seconds of one update of two micro-steps."""
    import torch

    from tunebook.training.memory import measure_step_memory, resident_bytes

    torch.manual_seed(0)
    device = hardware.device
    dtype = "float32" if device == "cpu" else "bfloat16"
    model, shape = build(case, device, dtype)
    optimizer = _optimizer(model, device)
    step = training_step(model, optimizer, case, device)
    step()
    before = resident_bytes(model, optimizer)
    peak = before + measure_step_memory(step, device=device)
    seconds = min(_timed(step, device) for _ in range(2))
    recipe = Recipe().with_values(
        {"quantization.bits": case.bits, "lora.target_modules": _targets(case)}
    )
    strategy = Strategy(
        micro_batch=case.rows,
        gradient_accumulation_steps=2,
        gradient_checkpointing=case.recompute,
        dtype=dtype,
        optimizer="adamw_torch" if device == "cpu" else "adamw_8bit",
    )
    batch = Batch(case.rows, case.length, case.padded)
    resident = resident_parts(shape, recipe, strategy, device)
    parts = memory_parts(shape, recipe, strategy, batch, device)
    del model, optimizer, step
    gc.collect()
    stays = sum(resident.values()) - resident["gradients"]  # dropped between updates
    total = sum(parts.values())
    forecast_seconds = seconds_per_step(shape, recipe, strategy, batch, hardware)
    return {
        **asdict(case),
        "resident": before,
        "resident_forecast": stays,
        "peak": peak,
        "peak_forecast": total,
        "peak_error": total / peak - 1,
        "seconds": seconds,
        "seconds_forecast": forecast_seconds,
        "parts": parts,
    }


def build(case: Case, device: str, dtype: str) -> tuple[Any, ModelShape]:
    """A random model of the case with LoRA on all linear layers, ready to train, and its shape."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    sizes = dict(SIZES[case.sizes])
    heads, key_heads, head_dim = sizes.pop("heads")
    config = AutoConfig.for_model(
        case.kind,
        **sizes,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        head_dim=head_dim,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            device_map={"": device},
            **_quantization(case.bits, getattr(torch, dtype)),
        )
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=16, target_modules=_targets(case))
    model = get_peft_model(model, lora)
    if case.recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model.train(), ModelShape.from_config(config.to_dict())


def training_step(model: Any, optimizer: Any, case: Case, device: str) -> Callable[[], None]:
    """One weight update of two micro-steps, as TRL's trainer does it."""
    import torch

    ids = torch.randint(3, SIZES[case.sizes]["vocab_size"], (case.rows, case.length), device=device)
    mask = torch.ones_like(ids)
    if case.padded:
        mask[0, case.length // 2 :] = 0
    labels = ids.masked_fill(mask == 0, -100)
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def step() -> None:
        for _ in range(2):
            with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
                output = model(**inputs, fused_lm_head=True, use_cache=False)
                loss = -output.log_probs.sum() / output.label_mask.sum()
            loss.backward()
            del output, loss
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _targets(case: Case) -> Any:
    """All linear layers, by name where the names are the usual ones."""
    return "all-linear" if case.kind == "phi3" else Recipe().lora.target_modules


def _optimizer(model: Any, device: str) -> Any:
    import bitsandbytes
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained) if device == "cpu" else bitsandbytes.optim.AdamW8bit(trained)


def _quantization(bits: int, dtype: Any) -> dict[str, Any]:
    from transformers import BitsAndBytesConfig

    if bits == 16:
        return {}
    if bits == 8:
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    four = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": four}


def _timed(step: Callable[[], None], device: str) -> float:
    import torch

    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _quiet() -> None:
    import logging

    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _versions(hardware: Hardware) -> str:
    from importlib.metadata import version

    packages = ("torch", "transformers", "trl", "peft", "bitsandbytes")
    found = ", ".join(f"{name} {version(name)}" for name in packages)
    rate = f"{hardware.flops / 1e9:.0f} GFLOP/s, {hardware.bandwidth / 1e9:.0f} GB/s"
    host = f"{hardware.name} ({hardware.cores} cores, {rate})"
    return f"{host}; Python {platform.python_version()}, {found}"


def _line(row: dict[str, Any]) -> str:
    def pair(measured: float, forecast: float, unit: float, digits: int) -> str:
        error = forecast / measured - 1
        return f"{measured / unit:7.{digits}f}{forecast / unit:7.{digits}f}{error:+6.0%}"

    recompute = "on" if row["recompute"] else "off"
    shape = f"{row['rows']}x{row['length']}"
    return (
        f"{row['name']:22}{row['bits']:>5}{shape:>9}{recompute:>4}  "
        f"{pair(row['resident'], row['resident_forecast'], 2**20, 1)}  "
        f"{pair(row['peak'], row['peak_forecast'], 2**20, 1)}  "
        f"{pair(row['seconds'], row['seconds_forecast'], 1e-3, 0)}"
    )


if __name__ == "__main__":
    sys.exit(main())
