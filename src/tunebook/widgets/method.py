"""The method panel: LoRA, quantization and training as a form, and what they will cost.

The form is drawn from the recipe's own fields, the bar and the pictures from the plan's own numbers.
"""

from __future__ import annotations

from typing import Any

import traitlets as t

from tunebook.errors import RecipeInvalid
from tunebook.models.anatomy import SHORTCUTS, toggled
from tunebook.plan import make_plan, preset_changes
from tunebook.plan.presets import find_preset
from tunebook.recipe import Recipe
from tunebook.widgets._fields import field_dicts
from tunebook.widgets._forecasting import Forecasting
from tunebook.widgets._pictures import (
    budget_within,
    change_rows,
    ladder_dict,
    layer_dict,
    preset_dicts,
    rounding_choice,
    rounding_ways,
    schedule_dict,
)
from tunebook.widgets._state import Studio


class MethodPanel(Forecasting):
    """How it learns, and what that costs in memory and time, before anything is loaded.

    Example:
        >>> panel = MethodPanel()
        >>> panel.do_set("lora.r", "32")
        >>> panel.recipe.lora.r
        32
        >>> panel.use_targets("attention")
        >>> panel.recipe.lora.target_modules
        ['q_proj', 'k_proj', 'v_proj', 'o_proj']
    """

    module = "method"
    purpose = "method"
    parts = ("lora", "quantization", "training", "model.max_seq_length")
    without = ("training.method",)

    ladder = t.Dict(help="The strategy ladder and the budget's range; see `ladder_dict`.").tag(
        sync=True
    )
    layer = t.Dict(help="One layer of this model as parts; or empty.").tag(sync=True)
    schedule = t.Dict(help="The learning rate over the steps.").tag(sync=True)
    rounding = t.Dict(help="What each way of storing does to the weights.").tag(sync=True)
    stored_as = t.Unicode(help="Which of them the recipe chose.").tag(sync=True)
    presets: t.List[Any] = t.List(help="Starting points: key, title, about.").tag(sync=True)
    preview = t.Dict(help="What a preset would change and cost; or empty.").tag(sync=True)
    applied = t.Dict(help="The preset that can be taken back; or empty.").tag(sync=True)

    def __init__(
        self, recipe: Recipe | None = None, *, studio: Studio | None = None, **traits: Any
    ) -> None:
        traits.setdefault("heading", "Method")
        traits.setdefault(
            "lead", "How it learns; the bar shows what each choice costs before you start."
        )
        self._before: dict[str, Any] = {}
        self._weights_of: Any = None
        fields = _length_beside_training(field_dicts(self.parts, self.without))
        super().__init__(recipe, studio=studio, presets=preset_dicts(), fields=fields, **traits)

    def set_budget(self, memory: float | str) -> None:
        """Plan within so many bytes, or a text such as "6.5GiB"; "auto" is what is free."""
        if isinstance(memory, str):
            self.recipe = self.recipe.with_values({"training.memory_budget": memory})
        elif self.studio.plan is not None:
            self.recipe = budget_within(self.recipe, memory, self.studio.plan.hardware)

    def use_targets(self, which: str) -> None:
        """Put adapters on "all" linear layers, on those of "attention" or of the "mlp"."""
        self.recipe = self.recipe.with_values({"lora.target_modules": list(SHORTCUTS[which])})

    def toggle_target(self, name: str) -> None:
        """Add an adapter to a module of each layer, or take it away."""
        shape = self.studio.known_shape() or self.studio.shape(self.recipe.model)
        names = toggled(shape, self.recipe.lora, name)
        self.recipe = self.recipe.with_values({"lora.target_modules": names})

    def preview_preset(self, key: str) -> None:
        """Show what a preset would change and cost, and change nothing."""
        changes = self._changes(key)
        wanted = self.recipe.with_values(changes)
        about = {"key": key, "changes": change_rows(self.recipe, changes)}
        plan = self._plan_of(wanted)
        if plan is not None:
            cost = plan.forecast
            about |= {"total": cost.total, "fits": cost.fits, "seconds": cost.seconds_total}
        self.show(preview=about)

    def apply_preset(self, key: str) -> None:
        """Set the fields of a preset."""
        changes = self._changes(key)
        self._before = {path: self.recipe.get(path) for path in changes}
        self.recipe = self.recipe.with_values(changes)
        title = find_preset(key).title
        self.show(preview={}, applied={"key": key, "title": title} if changes else {}, invalid={})

    def undo_preset(self) -> None:
        """Set the fields that the last preset changed to what they were; others stay."""
        self.recipe = self.recipe.with_values(self._before)
        self._before = {}
        self.show(applied={}, preview={})

    def do_budget(self, memory: float | str) -> None:
        """The slider was moved, or `auto` was pressed."""
        self.set_budget(memory)

    def do_targets(self, which: str) -> None:
        """A shortcut of the picture was pressed."""
        self.use_targets(which)
        self._refuse("lora.target_modules", "")

    def do_toggle(self, name: str) -> None:
        """A module of the picture was pressed."""
        try:
            self.toggle_target(name)
        except RecipeInvalid as error:
            self._refuse("lora.target_modules", error.why)
        else:
            self._refuse("lora.target_modules", "")

    def do_preview(self, key: str = "") -> None:
        """A preset was pressed; none puts its preview away."""
        if key:
            self.preview_preset(key)
        else:
            self.show(preview={})

    def do_apply(self, key: str) -> None:
        """A preset was taken."""
        self.apply_preset(key)

    def do_undo(self) -> None:
        """The last preset was taken back."""
        self.undo_preset()

    def _refuse(self, path: str, message: str) -> None:
        others = {key: item for key, item in self.invalid.items() if key != path}
        typed = self.recipe.get(path)
        refused = {path: {"typed": typed, "message": message}} if message else {}
        self.show(invalid={**others, **refused})

    def _changes(self, key: str) -> dict[str, Any]:
        def fits(recipe: Recipe) -> bool:
            plan = self._plan_of(recipe)
            return plan is not None and plan.fits

        return preset_changes(key, self.recipe, fits)

    def _plan_of(self, recipe: Recipe) -> Any:
        """A plan of another recipe for the same model; None where this one has none."""
        studio = self.studio
        shape = studio.known_shape()
        if shape is None or studio.hardware is None:
            return None
        return make_plan(recipe, shape=shape, hardware=studio.hardware, data=studio.data_size)

    def _plan_changed(self, change: object = None) -> None:
        super()._plan_changed(change)  # the bar first: the rest may come a moment later
        plan, recipe = self.studio.plan, self.recipe
        shape = self.studio.known_shape()
        ladder: dict[str, Any] = {}
        if plan is not None and shape is not None:
            ladder = ladder_dict(plan, recipe, shape, self.studio.data_size)
            self._look_at_weights()
        self.show(ladder=ladder, values=self.values_now(), **self._pictures())

    def _recipe_changed(self, change: object = None) -> None:
        super()._recipe_changed(change)
        self.show(**self._pictures())  # not every field changes the plan

    def _pictures(self) -> dict[str, Any]:
        """What the recipe alone decides, once the model's shape is known."""
        plan, recipe, shape = self.studio.plan, self.recipe, self.studio.known_shape()
        return {
            "layer": {} if shape is None else layer_dict(recipe, shape),
            "schedule": schedule_dict(recipe, plan),
            "stored_as": rounding_choice(recipe),
        }

    def _look_at_weights(self) -> None:
        """Read a slice of the model's weights in a thread, once for each model."""
        part = self.recipe.model
        if (part.name, part.revision) == self._weights_of:
            return
        self._weights_of = (part.name, part.revision)

        def look() -> None:
            ways = rounding_ways(part)
            if (part.name, part.revision) == self._weights_of:
                self.show(rounding=ways)

        self.work(look, during="look at the weights", lane="weights")

    def _one_line(self, plan: Any) -> str:
        recipe = self.recipe
        method = f"rank {recipe.lora.r}, {recipe.quantization.bits} bit"
        return f"{method} · {super()._one_line(plan)}"


def _length_beside_training(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The length of rows stands with the batch, whose memory it decides."""
    group = next(field["group"] for field in fields if field["path"] == "training.batch_size")
    first: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for field in fields:
        of_model = field["path"].startswith("model.")
        (first if of_model else rest).append({**field, "group": group} if of_model else field)
    at = next(i for i, field in enumerate(rest) if field["path"] == "training.batch_size")
    return [*rest[:at], *first, *rest[at:]]
