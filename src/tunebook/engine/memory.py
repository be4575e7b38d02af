"""Spends memory on speed in a patched model: what each layer keeps, where, and which weights stay unpacked.

Knows the fused layers and takes orders; what is worth it is the planner's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from tunebook.engine.decoder import (
    ALL,
    DECODER,
    Keep,
    berth_of,
    forget,
    fused,
    scratch_owner,
)
from tunebook.engine.host_embedding import embedding_bytes, embedding_failure
from tunebook.engine.linear_group import SCRATCH
from tunebook.engine.modules import swapped_kind
from tunebook.engine.offload import Berth, HostStore, Stows


@dataclass(frozen=True)
class LayerMemory:
    """How one decoder layer is run.

    Attributes:
        keep: what of its activations stays for the backward.
        resident: whether its weights stay in the compute dtype beside their 4-bit form.
        offload: what of it waits for the backward in the host's memory, as far as it is kept. It
            comes back while the layer behind runs backward, so the last ones gain nothing by it.
    """

    keep: Keep = ALL
    resident: bool = False
    offload: Stows = "nothing"


def fused_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder layers that run fused, first to last."""
    return [module for module in model.modules() if swapped_kind(module) == DECODER.name]


def spend(model: nn.Module, layers: Sequence[LayerMemory]) -> None:
    """Run each fused layer as told; kept weights are copied at the next forward.

    Args:
        layers: one for each of `fused_layers(model)`.

    Raises:
        ValueError: their number differs.
    """
    found = fused_layers(model)
    if len(found) != len(layers):
        raise ValueError(f"{len(layers)} layers were planned; the model runs {len(found)} fused")
    for module, wanted in zip(found, layers, strict=True):
        layer = fused(module)
        layer.keep = wanted.keep
        for group in layer.groups:
            if group.resident != wanted.resident:
                group.keep_weights(wanted.resident)
    _offload(found, [wanted.offload for wanted in layers])
    _clear_scratch(found)


def drops(model: nn.Module) -> bool:
    """Whether a fused layer uses dropout, so that a step draws random numbers on the host."""
    return any(fused(module).drops for module in fused_layers(model))


def release(model: nn.Module) -> None:
    """Give up copies of weights and the scratch, as for a chat after training."""
    found = fused_layers(model)
    stores = _stores(found)
    for module in found:
        forget(module)
    for store in stores:
        store.close()
    _clear_scratch(found)


def host_bytes(model: nn.Module) -> int:
    """Bytes of host memory that what layers keep waits in, so far, and that the embedding takes."""
    inputs = sum(store.nbytes for store in _stores(fused_layers(model)))
    return inputs + embedding_bytes(model)


def host_failure(model: nn.Module) -> str | None:
    """Why something stays on the device although it was to be offloaded; None if nothing has to."""
    failures = (store.failure for store in _stores(fused_layers(model)))
    return next((failure for failure in failures if failure), embedding_failure(model))


def _offload(found: Sequence[nn.Module], wanted: Sequence[Stows]) -> None:
    """Give each layer its place; all share one store, which goes when none is wanted."""
    stores = _stores(found)
    stows = [one != "nothing" for one in wanted]
    if any(stows) and not stores:
        stores = [HostStore(next(found[0].parameters()).device)]
    for index, module in enumerate(found):
        concerned = stows[index] or (index > 0 and stows[index - 1])
        last = index == len(found) - 1
        fused(module).berth = Berth(stores[0], index, wanted[index], last) if concerned else None
    if not any(stows):
        for store in stores:
            store.close()


def _stores(found: Sequence[nn.Module]) -> list[HostStore]:
    berths = (berth_of(module) for module in found)
    return list({berth.store: None for berth in berths if berth is not None})


def _clear_scratch(layers: Sequence[nn.Module]) -> None:
    for owner in {scratch_owner(layer) for layer in layers}:
        SCRATCH.clear(owner)
