"""The work of a run, from recipe to adapter, on whichever thread calls it.

Nothing is written before model, data and plan are known to be good, so a mistake in the recipe
leaves no half-made folder. This module knows no thread and no panel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data import DataStatistics, PreparedData, prepare_data
from tunebook.data.tokenizers import words_for
from tunebook.data.vision_collator import VisionDataCollator, VisionRows
from tunebook.data.vision_texts import tokenizer_of
from tunebook.engine import Report, audit_gradients, release
from tunebook.errors import FolderExists, require_disk_space
from tunebook.events import EventLog, ExportEvent, FinishedEvent, MeasuringEvent, WarningEvent
from tunebook.export import FORMATS, Progress, save_adapter
from tunebook.export.adapter import parameter_bytes
from tunebook.models.adapters import add_lora
from tunebook.models.loading import default_device, load_model, load_shape
from tunebook.models.quiet import quiet, quiet_checkpoints
from tunebook.models.shape import ModelShape
from tunebook.plan import DataSize, Plan, make_plan, require_fit
from tunebook.recipe import Recipe
from tunebook.training.between import BetweenSteps
from tunebook.training.callbacks import EventCallback
from tunebook.training.controls import Controls
from tunebook.training.folder import RunFolder
from tunebook.training.optimizers import require_optimizer
from tunebook.training.samples import Sampler, make_sampler
from tunebook.training.setup import give_up_memory, set_up
from tunebook.training.sft import make_trainer

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from tunebook.export.progress import Pass
    from tunebook.training.trainer import SFTTrainer

_PROBE = 32  # tokens before and after the first one that is learnt
_MEASURING_EVERY = 5.0  # seconds between two events of one pass


@dataclass
class Prepared:
    """All that training needs, in memory; nothing of it is on the disk yet.

    `words` are the tokenizer, or the processor of a model that sees.
    """

    model: PeftModel
    words: Any
    data: PreparedData
    shape: ModelShape
    plan: Plan
    swaps: Report
    sampler: Sampler

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer, with the template that it is trained with."""
        return tokenizer_of(self.words)


def prepare(recipe: Recipe, rows: Any, tell: Callable[[str], None]) -> Prepared:
    """Load, tokenise and plan; raises the named error of whatever is wrong.

    Args:
        recipe: what the user wants.
        rows: rows in memory instead of `recipe.data.source`, or None.
        tell: is given a sentence at each stage.
    """
    require_optimizer(recipe.training.optimizer, recipe.training.gradient_accumulation_steps)
    tell("Reading the tokenizer")
    shape = load_shape(recipe.model)
    words = words_for(recipe)
    tell("Turning rows into tokens")
    data = prepare_data(recipe, words, rows=rows)
    size, recipe = data_size(data.statistics), as_run(recipe, data)
    plan = require_fit(make_plan(recipe, shape=shape, data=size))
    # which may add up more batches than the recipe says
    require_optimizer(plan.strategy.optimizer, plan.strategy.gradient_accumulation_steps)
    tell("Loading the model")
    model = load_model(recipe.model, recipe.quantization, device=default_device())
    model.config.use_cache = False
    tell("Adding the adapter")
    adapted = add_lora(model, recipe.lora, seed=recipe.training.seed)
    tell("Checking the gradients")
    batch = probe(data, adapted, words)
    ids, labels = batch["input_ids"], batch["labels"]
    inputs = {name: value for name, value in batch.items() if name not in ("input_ids", "labels")}
    plan, swaps = set_up(adapted, plan, recipe, shape, size, ids, labels, inputs)
    require_fit(plan)
    audit_gradients(adapted, batch)
    sampler = make_sampler(recipe, adapted, words, data)
    return Prepared(adapted, words, data, shape, plan, swaps, sampler)


def probe(data: PreparedData, model: PeftModel, words: Any) -> dict[str, torch.Tensor]:
    """A few tokens of a row, (1, length), to try the model on before training.

    Of rows with pictures, a whole row with small ones.
    """
    import torch

    if isinstance(data.train, VisionRows):
        seen = next((row for row in data.train if row["images"]), data.train[0])
        return {
            k: v.to(model.device)
            for k, v in VisionDataCollator(processor=words).small(seen).items()
        }
    row = data.train[0]
    first = next(i for i, label in enumerate(row["labels"]) if label != -100)
    end = first + _PROBE
    start = max(0, first - _PROBE)
    return {
        name: torch.tensor([row[name][start:end]], device=model.device)
        for name in ("input_ids", "labels")
    }


def as_run(recipe: Recipe, data: PreparedData) -> Recipe:
    """The recipe as a model that sees runs it: nothing is packed, and nothing learns from no picture."""
    changed: dict[str, Any] = {}
    if isinstance(data.train, VisionRows):
        if recipe.training.packing:
            changed["training.packing"] = False
        if not data.statistics.images and recipe.lora.vision_layers and recipe.lora.language_layers:
            changed["lora.vision_layers"] = False
    return recipe.with_values(changed) if changed else recipe


def run_warnings(recipe: Recipe, run: Recipe) -> list[WarningEvent]:
    """What the user should know of how a recipe is run (see `as_run`)."""
    told = []
    if recipe.training.packing != run.training.packing:
        what = "Rows of a model that sees are not packed into full sequences."
        told.append(("rows_not_packed", what, "nothing; batches are padded to their longest row."))
    if recipe.lora.vision_layers != run.lora.vision_layers:
        what = "No row holds a picture: the layers that look at pictures get no adapter."
        told.append(("no_pictures", what, "look at `data.image_columns` if there should be some."))
    return [WarningEvent(code=code, message=what, do=do) for code, what, do in told]


def data_size(statistics: DataStatistics) -> DataSize:
    """What the forecast needs to know of the data."""
    return DataSize(
        rows=statistics.rows,
        mean_length=statistics.mean_length,
        max_length=statistics.longest,
    )


def execute(
    folder: RunFolder,
    recipe: Recipe,
    prepared: Prepared,
    *,
    controls: Controls,
    stop_asked: Callable[[], bool],
    checkpoint: Path | None,
    tell: Callable[[str], None],
) -> None:
    """Train from the start or from a checkpoint, save the adapter, export what the recipe says.

    Args:
        folder: where the run is written; made here unless it is resumed.
        recipe: what the user wants.
        prepared: from `prepare`.
        controls: what is asked of the run while it goes on.
        stop_asked: asked after every step.
        checkpoint: folder to continue from, or None.
        tell: is given a sentence at each stage.

    Raises:
        DiskFull, FolderExists: before anything is written.
    """
    _open_folder(folder, recipe, prepared, resumed=checkpoint is not None)
    prepared.sampler.keep_images(folder.path)
    model = prepared.model
    resumed = folder.step_of(checkpoint) if checkpoint else None
    notes = data_warnings(prepared.data.statistics, recipe) + swap_warnings(prepared.swaps)
    notes += run_warnings(recipe, as_run(recipe, prepared.data))
    callback = EventCallback(folder.log, model, stop_asked, notes, resumed)
    with quiet():
        trainer = make_trainer(
            recipe,
            prepared.plan.strategy,
            model,
            prepared.words,
            prepared.data.train,
            prepared.data.eval,
            output_dir=folder.checkpoints,
            callbacks=[callback],
        )
    callback.attach(trainer)
    between = BetweenSteps(folder.log, controls, stop_asked, prepared.sampler)
    trainer.between_steps = between
    trainer.step_down = _out_of_memory(folder, recipe, prepared, trainer)
    tell("Training")
    began = time.perf_counter()
    try:
        with quiet_checkpoints():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        callback.release()
        release(model)  # what was spent on speed; the model may be talked to for hours
    tell("Saving")
    save_adapter(model, prepared.words, folder.adapter, recipe=recipe, replace=True)
    _export(folder, recipe, prepared, trainer.state.global_step)
    history = folder.history()
    folder.log.append(
        FinishedEvent(
            step=trainer.state.global_step,
            reason="stopped" if callback.stopped or between.stopped else "completed",
            first_loss=history[0].loss if history else None,
            last_loss=history[-1].loss if history else None,
            seconds=time.perf_counter() - began - between.paused_seconds,
            peak=callback.meter.peak or None,
        )
    )


def _out_of_memory(
    folder: RunFolder, recipe: Recipe, prepared: Prepared, trainer: SFTTrainer
) -> Callable[[], int | None]:
    """What the trainer calls when a batch does not fit: a smaller plan, told and written down."""
    size = data_size(prepared.data.statistics)
    recipe = as_run(recipe, prepared.data)
    smaller = give_up_memory(prepared.model, prepared.plan, recipe, prepared.shape, size)
    rows = prepared.plan.strategy.micro_batch

    def step_down() -> int | None:
        plan = smaller()
        if plan is None:
            return None
        plan.save(folder.plan_file)
        trainer.loss_chunk = plan.strategy.loss_chunk
        how = ", ".join(plan.strategy.spending())
        folder.log.append(
            WarningEvent(
                step=trainer.state.global_step,
                code="out_of_memory",
                message="The device ran out of memory; the step is run again with less: "
                f"micro-batch {plan.strategy.micro_batch}, {how}. What is learnt stays the same.",
                do="close what else uses the device, or set `training.memory_budget`.",
            )
        )
        return -(-rows // plan.strategy.micro_batch)

    return step_down


def swap_warnings(swaps: Report) -> list[WarningEvent]:
    """What the user should know of fused parts that did not pass their check."""
    return [
        WarningEvent(
            code="swap_undone",
            message=f"The fused {kind} was undone on this model: {reason}.",
            do="nothing: the model's own code is used there, which is slower; report the model.",
        )
        for kind, reason in swaps.undone().items()
    ]


def data_warnings(statistics: DataStatistics, recipe: Recipe) -> list[WarningEvent]:
    """What the user should know of the rows before training on them."""
    warnings = []
    total = statistics.rows + statistics.masked_rows
    if statistics.skipped_rows:
        warnings.append(
            WarningEvent(
                code="rows_skipped",
                message=f"{statistics.skipped_rows} rows cannot be used and are left out, as "
                "`data.on_bad_rows` says.",
                do="look at them with `tunebook check`.",
            )
        )
    if statistics.truncated:
        warnings.append(
            WarningEvent(
                code="rows_truncated",
                message=f"{statistics.truncated} of {total} rows are longer than "
                f"{recipe.model.max_seq_length} tokens and are cut there.",
                do="raise `model.max_seq_length`, or leave those rows out.",
            )
        )
    if statistics.masked_rows:
        warnings.append(
            WarningEvent(
                code="rows_masked",
                message=f"{statistics.masked_rows} of {total} rows hold nothing to learn and are left out.",
                do="look at them with `tunebook check`.",
            )
        )
    if statistics.hidden_tools:
        warnings.append(
            WarningEvent(
                code="tools_hidden",
                message=f"{statistics.hidden_tools} rows come with tools, which the chat template "
                "does not show to the model.",
                do="set `model.chat_template` to one that knows tools.",
            )
        )
    return warnings


def _open_folder(folder: RunFolder, recipe: Recipe, prepared: Prepared, *, resumed: bool) -> None:
    adapter = parameter_bytes(prepared.model, trainable=True)
    states = prepared.plan.forecast.parts["optimizer"]
    kept = recipe.training.keep_checkpoints + 1  # the new one is written before the old one goes
    require_disk_space(
        folder.path,
        kept * (adapter + states) + adapter + 64 * 2**20,
        purpose="the run's checkpoints",
    )
    if not resumed:
        try:
            folder.path.mkdir(parents=True, exist_ok=False)
        except FileExistsError:
            raise FolderExists(
                f"The folder {folder.path} exists already.",
                "another run was started under the same name.",
                "choose another `name`, or resume that run with `tunebook.open_run(path).resume()`.",
            ) from None
        recipe.save(folder.recipe_file)
    prepared.plan.save(folder.plan_file)


def _export(folder: RunFolder, recipe: Recipe, prepared: Prepared, step: int) -> None:
    folder.log.append(_exported(folder, "adapter", folder.adapter, step))
    for name in recipe.export.formats:
        if name != "adapter":
            target = folder.exports / name
            progress = Progress(measuring=measuring_events(folder.log, step))
            FORMATS[name].save(
                prepared.model,
                prepared.tokenizer,
                target,
                recipe=recipe,
                replace=True,
                progress=progress,
            )
            folder.log.append(_exported(folder, name, target, step, progress.notes))


def _exported(
    folder: RunFolder, format: str, path: Path, step: int, notes: Sequence[str] = ()
) -> ExportEvent:
    return ExportEvent(
        step=step,
        format=format,
        path=str(path.relative_to(folder.path)),
        bytes=folder_bytes(path),
        notes=tuple(notes),
    )


def measuring_events(
    log: EventLog, step: int, tell: Callable[[Pass], Any] | None = None
) -> Callable[[Pass], None]:
    """What a `Progress` tells of measuring as events: each pass as it begins, and every few seconds.

    Args:
        tell: called each time as well.
    """
    written = 0.0

    def told(one: Pass) -> None:
        nonlocal written
        if not one.done or time.monotonic() - written > _MEASURING_EVERY:
            written = time.monotonic()
            log.append(MeasuringEvent(step=step, **asdict(one)))
        if tell is not None:
            tell(one)

    return told


def folder_bytes(path: Path) -> int:
    """Bytes in all files of a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
