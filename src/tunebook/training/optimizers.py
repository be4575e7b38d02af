"""Says before anything is loaded whether an optimizer can be had here; transformers makes it later.

Knows transformers' names and what they ask for; knows no model, no data and no run.
"""

from __future__ import annotations

from importlib.metadata import version

from torch import nn
from transformers import Trainer, TrainingArguments

from tunebook.errors import ExtraMissing, RecipeInvalid
from tunebook.models.loading import default_device

_IN_BACKWARD = ("lomo", "adalomo")
_LOW_RANK = ("galore", "apollo")
_ADAPTERS = r".*\.lora_[AB]\..*"


def require_optimizer(name: str, accumulation: int) -> None:
    """Raise unless transformers can make this optimizer here.

    Args:
        name: of the recipe; "auto" is always there.
        accumulation: batches whose gradients are added up before an update.

    Raises:
        RecipeInvalid: the installed transformers has none of that name, or it updates the weights in
            each backward pass, so that gradients of several cannot be added up.
        ExtraMissing: it is in a package that is not installed.
    """
    if name == "auto":
        return
    if accumulation > 1 and (updates_in_backward(name) or name.endswith("_layerwise")):
        raise RecipeInvalid(
            f"The optimizer {name} cannot add up the gradients of {accumulation} batches.",
            "it updates the weights while each backward pass runs.",
            "set `training.gradient_accumulation_steps` to 1 and `training.batch_size` to what fits, "
            'or `training.optimizer` to "auto".',
        )
    arguments = _arguments(name)
    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments, nn.Sequential(nn.Linear(1, 1)))  # type: ignore[arg-type]
    except (ImportError, ValueError) as error:
        raise ExtraMissing(
            f"The optimizer {name} is not there.",
            f"transformers says: {error}",
            'install what it names, or set `training.optimizer` to "auto".',
        ) from error


def name_of(arguments: TrainingArguments) -> str:
    """The optimizer's name, which may stand there as an enumeration's member."""
    return str(getattr(arguments.optim, "value", arguments.optim))


def updates_in_backward(name: str) -> bool:
    """Whether the trainer has to tell the optimizer of each backward pass."""
    return name in _IN_BACKWARD


def target_modules(name: str) -> str | None:
    """Transformers' `optim_target_modules`: the matrices that a low-rank optimizer projects."""
    return _ADAPTERS if name.startswith(_LOW_RANK) else None


def _arguments(name: str) -> TrainingArguments:
    try:
        return TrainingArguments(
            output_dir="unused",
            optim=name,
            optim_target_modules="all-linear",
            use_cpu=default_device() == "cpu",
            report_to="none",
        )
    except ValueError as error:
        raise RecipeInvalid(
            f"There is no optimizer {name} here.",
            f"the installed transformers {version('transformers')} has none of that name.",
            'install another version of it, or set `training.optimizer` to "auto".',
        ) from error
