"""Which linear layers of a loaded model carry LoRA: by name, by kind and, where there are two, by tower.

Knows modules and their names; puts nothing on them.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunebook.errors import TargetsMissing
from tunebook.models.shape import fused_names
from tunebook.models.vision import Towers, has_towers, towers
from tunebook.models.vision_shape import SAME_IN_VISION
from tunebook.recipe import ALL_LINEAR, LoraPart

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

_ATTENTION = {"attn", "self_attn", "attention", "cross_attn"}
_MLP = {"mlp", "feed_forward"}
_NUMBER = re.compile(r"(?<=\.)\d+")


def lora_targets(
    model: nn.Module, part: LoraPart, *, layers: Sequence[int] | int | None = None
) -> list[str] | str:
    """What `peft.LoraConfig` takes as `target_modules` to reach exactly the layers that are asked for.

    Args:
        model: a loaded model without an adapter.
        part: names, and of which kinds and towers.
        layers: of a vision-language model's towers, only these; None means all.

    Raises:
        TargetsMissing: there is no such layer; the message lists the names that there are.
    """
    wanted = part.target_modules
    if not has_towers(model) and part.attention_modules and part.mlp_modules:
        return wanted if isinstance(wanted, str) else targets_of(model, wanted)
    paths = chosen_paths(model, part)
    if layers is not None:
        chosen = {layers} if isinstance(layers, int) else set(layers)
        paths = [p for p in paths if (found := _NUMBER.search(p)) and int(found[0]) in chosen]
    names = sorted({path.rsplit(".", 1)[-1] for path in paths})
    if {name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in names} == set(
        paths
    ):
        return names
    return _pattern(model, paths)


def chosen_paths(model: nn.Module, part: LoraPart) -> list[str]:
    """Full names of the layers that carry LoRA, in the model's order.

    A name means in the vision tower the layers that do the same there: `q_proj` its `qkv`, `down_proj`
    its `fc2`. The projector between the towers counts to the vision tower's MLPs, and "all-linear"
    reaches it. Layers of a vision tower whose output is not looked at carry none.

    Raises:
        TargetsMissing: none are left; the message lists the names that there are.
    """
    where = towers(model) if has_towers(model) else None
    paths = linear_paths(model)
    wanted = part.target_modules
    names = ALL_LINEAR if wanted == "all-linear" else wanted
    known = fused_names(names, lambda name: any(_matches(path, name) for path in paths))
    chosen = []
    for path in paths:
        tower = where.of(path) if where else "language"
        if not _is_switched_on(path, tower, part) or _is_unused(model, path, where):
            continue
        named = wanted == "all-linear" or any(_matches(path, name) for name in known)
        if named or (tower == "vision" and any(_does_the_same(path, name) for name in names)):
            chosen.append(path)
    if not chosen:
        raise _none(model, names, "and the kinds and towers that are switched on")
    return chosen


def targets_of(model: nn.Module, wanted: Sequence[str]) -> list[str]:
    """The names as this model has them: parts that it stores fused become the fused layer's.

    Raises:
        TargetsMissing: no linear layer is named so; the message lists the names that there are.
    """
    paths = linear_paths(model)
    found = fused_names(wanted, lambda name: any(_matches(path, name) for path in paths))
    if not any(_matches(path, name) for path in paths for name in found):
        raise _none(model, wanted)
    if parts := [name for name in wanted if name not in found]:
        logger.info(
            "The model stores some of the layers asked for as one: LoRA goes on %s instead of %s.",
            ", ".join(name for name in found if name not in wanted),
            ", ".join(parts),
        )
    return found


def linear_paths(model: nn.Module) -> list[str]:
    """Full names of the layers that can carry LoRA: linear ones, without the output head."""
    from torch import nn

    head_of: Any = getattr(model, "get_output_embeddings", None)
    head = head_of() if head_of is not None else None
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    ]


def linear_names(model: nn.Module) -> list[str]:
    """The last parts of those names, most frequent first: `q_proj`, `down_proj`, ..."""
    counts = Counter(name.rsplit(".", 1)[-1] for name in linear_paths(model))
    return [name for name, _ in counts.most_common()]


def kind_of(path: str, tower: str | None = None) -> str | None:
    """`attention` or `mlp`, by the module that a linear layer lies in; None for neither."""
    parents = set(path.split(".")[:-1])
    if tower == "projector" or parents & _MLP:
        return "mlp"
    return "attention" if parents & _ATTENTION else None


def recipe_values(model: Any) -> dict[str, Any]:
    """What a recipe's `lora` says of the layers that an adapted model has LoRA on, by dotted field."""
    targets = model.peft_config[model.active_adapter].target_modules
    base = model.get_base_model()
    if not has_towers(base):
        return {"target_modules": targets if isinstance(targets, str) else sorted(targets)}
    where = towers(base)
    paths = [name for name, module in base.named_modules() if hasattr(module, "lora_A")]
    found = {where.of(path) for path in paths}
    kinds = {kind_of(path, where.of(path)) for path in paths}
    names = {path.rsplit(".", 1)[-1] for path in paths if where.of(path) != "projector"}
    plain = {name for name in ALL_LINEAR if name in names or names & set(SAME_IN_VISION[name])}
    return {
        "target_modules": "all-linear" if "projector" in found else sorted(plain or names),
        "vision_layers": bool(found & {"vision", "projector"}),
        "language_layers": "language" in found,
        "attention_modules": "attention" in kinds,
        "mlp_modules": "mlp" in kinds,
    }


def _is_switched_on(path: str, tower: str | None, part: LoraPart) -> bool:
    kind = kind_of(path, tower)
    if kind is None and not (part.attention_modules and part.mlp_modules):
        return False
    if not {"attention": part.attention_modules, "mlp": part.mlp_modules}.get(kind or "", True):
        return False
    return part.language_layers if tower == "language" else part.vision_layers


def _is_unused(model: Any, path: str, where: Towers | None) -> bool:
    """Whether it is of a vision tower's layer behind the last one that is looked at, as in LLaVA."""
    seen = getattr(model.config, "vision_feature_layer", None)
    if where is None or seen is None or where.of(path) != "vision":
        return False
    count = model.config.vision_config.num_hidden_layers
    last = max(index if index >= 0 else count + 1 + index for index in _as_list(seen))
    layer = re.search(r"\.layers\.(\d+)\.", path)
    return layer is not None and int(layer[1]) >= last


def _as_list(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [int(value)]


def _does_the_same(path: str, name: str) -> bool:
    return kind_of(path) is not None and path.rsplit(".", 1)[-1] in SAME_IN_VISION.get(name, ())


def _pattern(model: nn.Module, paths: Sequence[str]) -> str:
    """A regular expression that these names match and no others of the model's modules."""
    shapes: dict[str, list[str]] = {}
    for path in paths:
        shapes.setdefault(re.sub(r"\\\.\d+", r"\\.\\d+", re.escape(path)), []).append(path)
    names = [name for name, _ in model.named_modules()]
    parts = []
    for shape, own in shapes.items():
        if [name for name in names if re.fullmatch(shape, name)] != own:  # some layers only
            numbers = "|".join(
                path_number[0] for path in own if (path_number := _NUMBER.search(path))
            )
            shape = shape.replace(r"\d+", f"(?:{numbers})", 1)
        parts.append(shape)
    return "|".join(parts)


def _matches(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _none(model: nn.Module, wanted: Sequence[str], more: str = "") -> TargetsMissing:
    return TargetsMissing(
        "The LoRA target modules match no layer of this model.",
        f"asked for {', '.join(sorted(wanted))}{more and f' {more}'}; "
        f"the model has {', '.join(linear_names(model))}.",
        "set `lora.target_modules` to names that it has, or to 'all-linear'"
        + ("." if not more else ", or switch more on: `lora.vision_layers`, `lora.mlp_modules`, …"),
    )
