"""Forecast against truth on a GPU: peak memory and time of real steps of the fused engine, by plan.

Builds random Llama shapes in NF4 on the device itself (no file, no download), patches them, and for
each budget runs the plan that the planner makes: loss, backward and the flat optimizer.

    python benchmarks/engine_memory.py [--size 1b 3b 8b] [--json FILE] [--device cuda|cpu]

On a CPU (size "tiny") it only shows that it runs: plain-torch kernels need memory of their own.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from speed.models import RANK, SIZES, TARGETS, Size

from tunebook.models.shape import ModelShape
from tunebook.plan import Hardware, Plan, make_plan
from tunebook.plan.nouns import GIB
from tunebook.recipe import Recipe

CASES: dict[str, list[tuple[int, int, tuple[float | None, ...]]]] = {
    "tiny": [(2, 64, (None,))],
    "1b": [(2, 2048, (None, 3.6, 2.4, 1.9, 1.74, 1.59)), (1, 8192, (None, 3.0))],
    "3b": [(2, 2048, (None, 8.0, 5.0, 3.7, 3.3, 3.0))],
    "8b": [
        (2, 2048, (None, 20.0, 12.0, 9.0, 7.9, 7.2, 6.74)),
        (1, 8192, (None, 20.0, 12.0, 8.5, 7.42)),
    ],
}
"""Rows, tokens of a row, and budgets in GiB (None: all that is free).

The smallest of each is the peak of the best rival; the one before it offloads and makes no tiles.
"""


def main() -> None:
    """Measure every size and print a line for each plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", nargs="+", choices=list(CASES), default=["1b", "3b", "8b"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    found: list[dict[str, Any]] = []
    print(
        f"{'model':>6} {'batch':>7} {'budget':>7} {'forecast':>9} {'peak':>7} {'error':>6}", end=""
    )
    print(f" {'reserved':>9} {'forecast':>9} {'step':>8}  strategy")
    for direction, rate in link().items():
        print(f"{direction}: {rate / 1e9:.1f} GB/s", file=sys.stderr)
    for size in options.size:
        for record in measure(size, options.device):
            found.append(record)
            print(line(record), flush=True)
    if options.json:
        report = {"versions": versions(), "link": link(), "records": found}
        options.json.write_text(json.dumps(report, indent=2))


def measure(size: str, device: str) -> Any:
    """Records of one model, which is given back afterwards."""
    began = time.perf_counter()
    hardware = Hardware.detect() if device == "cuda" else Hardware.of("H100")
    model, shape = build(SIZES[size], device)
    print(f"{size}: built in {time.perf_counter() - began:.1f} s", file=sys.stderr)
    for rows, length, budgets in CASES[size]:
        for budget in budgets:
            recipe = recipe_of(rows, length, budget)
            plan = make_plan(recipe, shape=shape, hardware=hardware)
            yield {"model": size, "length": length, "budget": budget} | run(model, plan, length)
    del model
    clean()


def build(size: Size, device: str) -> tuple[Any, ModelShape]:
    """A random model in NF4 with its adapter, patched, and its shape."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tunebook.engine import patch
    from tunebook.models.adapters import add_lora

    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=0,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.head_dim,
        tie_word_embeddings=size.tied,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
    )
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(config).to(dtype)
        config.num_hidden_layers = size.layers
        for index in range(size.layers):
            model.model.layers.append(quantized_layer(config, index, dtype))
    model.requires_grad_(False)
    model.is_loaded_in_4bit = True
    adapted = add_lora(model, recipe_of(1, 64, None).lora, seed=0)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    report = patch(adapted, device="auto" if device == "cuda" else "any")
    if report.left:
        print(report, file=sys.stderr)
    return adapted.train(), ModelShape.from_config(config.to_dict())


def quantized_layer(config: Any, index: int, dtype: Any) -> Any:
    """One decoder layer whose linear weights are random and 4 bit."""
    import bitsandbytes
    import torch
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    layer = LlamaDecoderLayer(config, index).to(dtype)
    for part in (layer.self_attn, layer.mlp):
        for name, linear in list(part.named_children()):
            if not isinstance(linear, torch.nn.Linear):
                continue
            weight = torch.randn_like(linear.weight) * 0.02
            packed = bitsandbytes.nn.Linear4bit(
                linear.in_features,
                linear.out_features,
                bias=False,
                compute_dtype=dtype,
                quant_type="nf4",
                device="meta",
            )
            packed.weight = bitsandbytes.nn.Params4bit(
                weight, requires_grad=False, quant_type="nf4", compress_statistics=True
            ).to(weight.device)
            setattr(part, name, packed)
    return layer


def recipe_of(rows: int, length: int, budget: float | None) -> Recipe:
    """The recipe of a case."""
    return Recipe().with_values(
        {
            "lora.r": RANK,
            "lora.target_modules": TARGETS,
            "training.batch_size": rows,
            "training.gradient_accumulation_steps": 1,
            "training.memory_budget": "auto" if budget is None else f"{budget}GiB",
            "model.max_seq_length": length,
        }
    )


def run(model: Any, plan: Plan, length: int) -> dict[str, Any]:
    """Three updates as planned: the peak of all, and the seconds of the last."""
    import torch
    from transformers import TrainingArguments

    from tunebook.engine import host_bytes
    from tunebook.training.flat import flat_optimizer
    from tunebook.training.spend import apply_strategy

    strategy = plan.strategy
    if not apply_strategy(model, strategy):
        raise SystemExit("the model's layers were not all patched")
    on_gpu = model.device.type == "cuda"
    name = strategy.optimizer if on_gpu else "adamw_torch"
    arguments = TrainingArguments(output_dir=".", optim=name, report_to="none")
    decayed = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer = flat_optimizer(model, arguments, decayed)
    clean()
    peak = reserved = None
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(strategy.gradient_accumulation_steps):
            micro_step(model, strategy, length)
        optimizer.step()
        optimizer.zero_grad()
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    if on_gpu:
        peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    forecast = plan.forecast
    return {
        "rows": strategy.micro_batch,
        "accumulation": strategy.gradient_accumulation_steps,
        "fits": plan.fits,
        "strategy": strategy.model_dump(mode="json"),
        "words": strategy.spending(),
        "parts": forecast.parts,
        "forecast_host": forecast.host,
        "host": host_bytes(model),
        "forecast": forecast.total,
        "peak": peak,
        "reserved": reserved,
        "forecast_seconds": forecast.seconds_per_step,
        "seconds": seconds,
    }


def micro_step(model: Any, strategy: Any, length: int) -> None:
    """Forward and backward as the trainer does them, on random ids."""
    import torch

    from tunebook.engine import CAUSAL, LossRequest

    ids = torch.randint(3, 1000, (strategy.micro_batch, length), device=model.device)
    rows = torch.arange(ids.numel(), device=model.device)
    request = LossRequest(ids, rows=rows, chunk=strategy.loss_chunk)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
        out = model(input_ids=ids, attention_mask=CAUSAL, use_cache=False, fused_loss=request)
    out.loss.backward()


def clean() -> None:
    """Give back what nobody holds."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def line(record: dict[str, Any]) -> str:
    """One line of the table."""
    peak, budget = record["peak"], record["budget"]
    error = "" if peak is None else f"{record['forecast'] / peak - 1:+.1%}"
    sizes = [record["forecast"], peak, record["reserved"]]
    forecast, measured, reserved = ("" if x is None else f"{x / GIB:.2f}" for x in sizes)
    batch = f"{record['rows']}x{record['length']}"
    return (
        f"{record['model']:>6} {batch:>7} {budget or 'free':>7} {forecast:>9} {measured:>7} "
        f"{error:>6} {reserved:>9} {record['forecast_seconds'] * 1e3:>6.0f} ms "
        f"{record['seconds'] * 1e3:>5.0f} ms  "
        f"{'' if record['fits'] else 'DOES NOT FIT; '}{', '.join(record['words'])}"
    )


@functools.cache
def link() -> dict[str, float]:
    """Bytes/s of copies of 64 MiB between pinned memory and the card; empty without one."""
    import torch

    if not torch.cuda.is_available():
        return {}
    host = torch.empty(2**26, dtype=torch.uint8, pin_memory=True)
    device = torch.empty(2**26, dtype=torch.uint8, device="cuda")
    found = {}
    for name, target, source in (("to host", host, device), ("to device", device, host)):
        target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(10):
            target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        found[name] = 10 * host.nbytes / (time.perf_counter() - began)
    return found


def versions() -> dict[str, str]:
    """What this was measured with."""
    from importlib.metadata import version

    import torch

    names = ("torch", "triton", "transformers", "peft", "bitsandbytes")
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"card": card, **{name: version(name) for name in names}}


if __name__ == "__main__":
    main()
