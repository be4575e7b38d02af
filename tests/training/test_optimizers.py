"""Every optimizer that transformers has a name for can be asked for; one that is not there is named."""

from __future__ import annotations

from typing import get_args

import pytest
from transformers.training_args import OptimizerNames

from tunebook.errors import ExtraMissing, RecipeInvalid
from tunebook.optimizer_names import Optimizer
from tunebook.training import Run
from tunebook.training.optimizers import require_optimizer

NAMES = [name for name in get_args(Optimizer) if name != "auto"]
ALWAYS = [
    "adafactor", "adagrad", "adamw_8bit", "adamw_bnb_8bit", "adamw_torch", "adamw_torch_fused",
    "ademamix", "ademamix_8bit", "lion_32bit", "lion_8bit", "paged_adamw_32bit", "paged_adamw_8bit",
    "paged_ademamix_32bit", "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit", "rmsprop",
    "rmsprop_bnb", "rmsprop_bnb_32bit", "rmsprop_bnb_8bit", "sgd",
]  # fmt: skip


def test_the_recipe_has_the_names_of_transformers():
    theirs = {item.value for item in OptimizerNames}
    add, remove = sorted(theirs - set(NAMES)), sorted(set(NAMES) - theirs)
    assert not add, f"add to `recipe.Optimizer`: {add}"
    assert not remove, f"remove from `recipe.Optimizer`, if no supported version has it: {remove}"
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("name", ["auto", *ALWAYS])
def test_what_needs_nothing_more_is_there(name):
    require_optimizer(name, accumulation=8)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(ALWAYS)))
def test_what_needs_a_package_is_there_or_says_which(name):
    missing = None
    try:
        require_optimizer(name, accumulation=1)
    except ExtraMissing as error:
        missing = str(error)
    assert missing is None or (name in missing and ("install" in missing or "import" in missing))
    if name in ("lomo", "adalomo") or name.endswith("layerwise"):
        with pytest.raises(RecipeInvalid, match="gradient_accumulation_steps"):
            require_optimizer(name, accumulation=2)


def test_a_name_that_this_transformers_lacks_is_refused():
    with pytest.raises(RecipeInvalid, match="adamw_of_tomorrow"):
        require_optimizer("adamw_of_tomorrow", accumulation=1)


def test_a_run_whose_optimizer_is_not_there_leaves_nothing(quick, tmp_path, monkeypatch):
    def absent(*_):
        raise ImportError("You need to install `lomo_optim`")

    def loads(*_, **__):
        raise AssertionError("something was loaded")

    monkeypatch.setattr("transformers.Trainer.get_optimizer_cls_and_kwargs", absent)
    monkeypatch.setattr("tunebook.training.worker.load_shape", loads)
    monkeypatch.setattr("tunebook.training.worker.prepare_data", loads)
    recipe = quick(training__optimizer="lomo", training__gradient_accumulation_steps=1)
    with pytest.raises(ExtraMissing, match="lomo_optim"):
        Run.create(recipe, root=tmp_path / "runs").start().wait()
    assert not (tmp_path / "runs").exists()
