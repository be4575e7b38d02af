"""What the user wants, as one typed document: the Recipe, its parts and its file.

Every knob is described once, here, in its field: title, teaching sentence, range, default, link.
Forms, the command line's help, the docs and the JSON schema are made from these fields. This
module knows neither torch nor widgets.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tunebook.errors import RecipeInvalid, SourceMissing
from tunebook.optimizer_names import Optimizer

SCHEMA_VERSION = 1
_DOCS = "https://huggingface.co/docs"

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def knob(default: Any = ..., **about: Any) -> Any:
    """A recipe field; `link`, `unit`, `step` and `advanced` go into the JSON schema for the forms."""
    names = ("link", "unit", "step", "advanced")
    extra: dict[str, Any] = {key: about.pop(key) for key in names if key in about}
    if isinstance(default, list):
        about["default_factory"] = default.copy
    else:
        about["default"] = default
    return Field(json_schema_extra=extra or None, **about)


class Part(BaseModel):
    """A part of a recipe: unknown names are refused, and an assignment is checked like a file."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class ModelPart(Part):
    """Which model is fine-tuned."""

    name: str = knob(
        "tunebook-tiny",
        title="Model",
        min_length=1,
        description="A name of the catalogue, a Hugging Face id, or a folder with a model in it. "
        "`tunebook-tiny` ships inside the package and needs no network.",
        link=f"{_DOCS}/transformers/model_doc/auto",
    )
    revision: str | None = knob(
        None,
        title="Revision",
        description="Branch, tag or commit on the hub; pin a commit to get the same weights next year.",
        advanced=True,
    )
    max_seq_length: int = knob(
        2048,
        title="Max length",
        ge=8,
        le=1_048_576,
        unit="tokens",
        description="Longer conversations are cut here. Memory for activations grows with it.",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = knob(
        "auto",
        title="Compute dtype",
        description="The number format of the arithmetic. Auto takes bfloat16 where the hardware has "
        "it, float16 on older GPUs and float32 on the CPU.",
        advanced=True,
    )
    chat_template: str | None = knob(
        None,
        title="Chat template",
        description="How a conversation becomes text. Empty: the one that the model came with.",
        link=f"{_DOCS}/transformers/chat_templating",
    )
    trust_remote_code: bool = knob(
        False,
        title="Run the model's own code",
        description="Lets Python code from the model's repository run on this machine. Leave off "
        "unless you have read that code.",
        advanced=True,
    )


class DataPart(Part):
    """What it learns from."""

    source: str = knob(
        "tunebook-demo",
        title="Dataset",
        min_length=1,
        description="A file (JSON, JSONL, CSV, Parquet, text), a Hugging Face dataset id, or "
        "`tunebook-demo`, which ships inside the package.",
        link=f"{_DOCS}/datasets/loading",
    )
    config: str | None = knob(
        None,
        title="Configuration",
        description="Subset of a hub dataset, if it has any.",
        advanced=True,
    )
    split: str = knob(
        "train",
        title="Split",
        description="Which part of the dataset is trained on; slices such as `train[:1000]` work.",
    )
    format: Literal[
        "auto",
        "messages",
        "sharegpt",
        "alpaca",
        "prompt_completion",
        "text",
        "preference",
        "unpaired_preference",
        "prompt_only",
    ] = knob(
        "auto",
        title="Format",
        description="What the columns mean. Auto looks at the first rows and says what it found; "
        "preferences are learnt from (the chosen answers only) if they are named here.",
    )
    columns: dict[str, str] | None = knob(
        None,
        title="Columns",
        description="Your own mapping instead of detection, such as `prompt=question, "
        "completion=answer`. Parts: messages, prompt, completion, instruction, input, output, "
        "system, tools, text, chosen, rejected, label, reference.",
        advanced=True,
    )
    merged_prompt: str | None = knob(
        None,
        title="Merged prompt",
        description="A question made of several columns, such as `{instruction}[[\\nInput: "
        "{input}]]`. A block in double brackets is left out where its column is empty.",
        advanced=True,
    )
    image_columns: list[str] | None = knob(
        None,
        title="Image columns",
        description="The columns that hold pictures: paths, bytes or images. Empty: they are found. "
        "An empty list takes none, so that a model that reads text learns from the words alone.",
        advanced=True,
    )
    min_pixels: int | None = knob(
        None,
        title="Least pixels",
        ge=1,
        unit="pixels",
        description="Smaller pictures are enlarged to this, so that small writing gets more tokens. "
        "Empty: what the model's own processor does.",
        advanced=True,
    )
    max_pixels: int | None = knob(
        None,
        title="Most pixels",
        ge=1,
        unit="pixels",
        description="Larger pictures are shrunk to this: fewer tokens and less memory for each. Empty: "
        "what the model's own processor does.",
        advanced=True,
    )
    on_bad_rows: Literal["stop", "skip"] = knob(
        "stop",
        title="Broken rows",
        description="Stop names the first row that cannot be used. Skip leaves such rows out and "
        "says how many there were.",
        advanced=True,
    )
    streaming: bool = knob(
        False,
        title="Streaming",
        description="Read a hub dataset as it comes instead of downloading all its files first; "
        "with a row limit only that much is read.",
        advanced=True,
    )
    eval_source: str | None = knob(
        None,
        title="Evaluation dataset",
        description="Rows that are only measured, never trained on. Empty: see evaluation share.",
        advanced=True,
    )
    eval_fraction: float = knob(
        0.0,
        title="Evaluation share",
        ge=0.0,
        le=0.5,
        step=0.01,
        description="Share of the rows that is held back to measure. A rising evaluation loss under a "
        "falling training loss means learning by heart.",
    )
    train_on: Literal["responses", "last_response", "all"] = knob(
        "responses",
        title="Train on",
        description="Responses: learn only what the assistant says (best for chat). All: learn the "
        "questions too (for plain text).",
    )
    max_rows: int | None = knob(
        None,
        title="Row limit",
        ge=1,
        description="Use only the first rows, for a quick look.",
        advanced=True,
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _typed_columns(cls, value: Any) -> Any:
        """`prompt=question, completion=answer`, as a person types it, is a mapping too."""
        return columns_of_text(value) if isinstance(value, str) else value

    @field_validator("image_columns", mode="before")
    @classmethod
    def _typed_names(cls, value: Any) -> Any:
        """`before, after`, as a person types it, is a list too; blanks are none said."""
        if not isinstance(value, str):
            return value
        return [name.strip() for name in value.split(",") if name.strip()] or None

    @model_validator(mode="after")
    def _has_room(self) -> DataPart:
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError("min_pixels must not be larger than max_pixels")
        return self


class LoraPart(Part):
    """The small matrices that are trained beside the frozen model."""

    r: int = knob(
        16,
        title="Rank",
        ge=1,
        le=1024,
        description="Width of the added matrices. 8 to 16 changes style and format, 32 to 64 leaves "
        "room for new knowledge; memory and file size grow with it.",
        link=f"{_DOCS}/peft/developer_guides/lora",
    )
    alpha: int = knob(
        16,
        title="Alpha",
        ge=1,
        le=4096,
        description="Strength of the adapter: its output is multiplied by alpha / rank.",
        link=f"{_DOCS}/peft/developer_guides/lora",
    )
    dropout: float = knob(
        0.0,
        title="Dropout",
        ge=0.0,
        lt=1.0,
        step=0.01,
        description="Share of the adapter's inputs that is zeroed at random. A little helps with very "
        "few rows; 0 is fastest.",
    )
    target_modules: list[str] | Literal["all-linear"] = knob(
        ALL_LINEAR,
        title="Target modules",
        description="The layers that get an adapter. All seven learns best; only q and v is smallest.",
        link=f"{_DOCS}/peft/developer_guides/lora",
    )
    vision_layers: bool = knob(
        True,
        title="Vision tower",
        description="Adapters on the layers that look at pictures, and on what hands them to the "
        "language model. Off: it learns to speak about what it sees already. Of models that see.",
        advanced=True,
    )
    language_layers: bool = knob(
        True,
        title="Language tower",
        description="Adapters on the layers that read and write text. Of models that see.",
        advanced=True,
    )
    attention_modules: bool = knob(
        True,
        title="Attention",
        description="Adapters on queries, keys, values and outputs, where the target modules name them.",
        advanced=True,
    )
    mlp_modules: bool = knob(
        True,
        title="MLPs",
        description="Adapters on gate, up and down, where the target modules name them.",
        advanced=True,
    )
    adapter_dtype: Literal["auto", "float32", "bfloat16"] = knob(
        "auto",
        title="Adapter dtype",
        description="The number format of the added matrices and of their gradients. Auto takes "
        "float32: most updates are smaller than a step of bfloat16, which takes half the memory.",
        advanced=True,
    )
    bias: Literal["none", "all", "lora_only"] = knob(
        "none",
        title="Bias",
        description="Which bias terms are trained too; usually none.",
        advanced=True,
    )
    use_rslora: bool = knob(
        False,
        title="Rank-stabilised",
        description="Scales by alpha / sqrt(rank) instead: keeps high ranks from learning too slowly.",
        link="https://arxiv.org/abs/2312.03732",
        advanced=True,
    )

    @model_validator(mode="after")
    def _has_targets(self) -> LoraPart:
        if not self.target_modules:
            raise ValueError("target_modules must name at least one layer")
        if not (self.attention_modules or self.mlp_modules):
            raise ValueError("attention_modules and mlp_modules cannot both be off")
        if not (self.vision_layers or self.language_layers):
            raise ValueError("vision_layers and language_layers cannot both be off")
        return self


class QuantizationPart(Part):
    """How the frozen weights are stored."""

    bits: Literal[4, 8, 16] = knob(
        4,
        title="Weights",
        unit="bits",
        description="4 bit needs a quarter of the memory of 16 bit and learns almost as well, since "
        "the adapter stays in high precision.",
        link="https://arxiv.org/abs/2305.14314",
    )
    quant_type: Literal["nf4", "fp4"] = knob(
        "nf4",
        title="4-bit type",
        description="NF4 places its 16 values where normally distributed weights are dense.",
        link="https://arxiv.org/abs/2305.14314",
        advanced=True,
    )
    double_quant: bool = knob(
        True,
        title="Double quantization",
        description="Quantizes the scales too: saves another 0.4 bit a weight.",
        advanced=True,
    )


class TrainingPart(Part):
    """How it learns."""

    method: Literal["sft"] = knob(
        "sft",
        title="Method",
        description="Supervised fine-tuning: learn to give the answers shown.",
    )
    max_steps: int | None = knob(
        None,
        title="Steps",
        ge=1,
        description="Number of weight updates. Empty: as many as the epochs need.",
    )
    epochs: float = knob(
        1.0,
        title="Epochs",
        gt=0,
        le=1000,
        step=0.5,
        description="How often every row is seen. One to three is usual; more tends to learn by heart.",
    )
    batch_size: int = knob(
        2,
        title="Batch",
        ge=1,
        le=4096,
        unit="rows",
        description="Rows that are worked on at once. Larger is faster and needs more memory.",
    )
    gradient_accumulation_steps: int = knob(
        4,
        title="Accumulation",
        ge=1,
        le=4096,
        description="Batches whose gradients are added up before one update: the effect of a larger "
        "batch without its memory.",
    )
    learning_rate: float = knob(
        2e-4,
        title="Learning rate",
        gt=0,
        le=1.0,
        step=1e-5,
        description="Size of each update. 2e-4 suits LoRA; lower it if the loss jumps about.",
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = knob(
        "linear",
        title="Schedule",
        description="How the learning rate falls over the run.",
    )
    warmup_steps: int = knob(
        5,
        title="Warm-up",
        ge=0,
        unit="steps",
        description="Steps over which the learning rate rises from 0.",
    )
    optimizer: Optimizer = knob(
        "auto",
        title="Optimizer",
        description="Auto takes 8-bit AdamW on a GPU (a quarter of the memory) and AdamW on the CPU. "
        "The names are those of transformers; some need a package of their own.",
        link=f"{_DOCS}/transformers/optimizers",
        advanced=True,
    )
    weight_decay: float = knob(
        0.01,
        title="Weight decay",
        ge=0.0,
        le=1.0,
        step=0.01,
        description="Pulls the adapter towards zero a little at every step.",
        advanced=True,
    )
    max_grad_norm: float = knob(
        1.0,
        title="Gradient clipping",
        gt=0.0,
        description="Gradients longer than this are shortened, so that one odd row cannot do harm.",
        advanced=True,
    )
    packing: bool = knob(
        False,
        title="Packing",
        description="Puts short rows together into full sequences; no time is spent on padding.",
    )
    gradient_checkpointing: Literal["auto", "on", "off"] = knob(
        "auto",
        title="Recompute activations",
        description="Saves memory by computing activations twice. Auto keeps as many as fit, layer by "
        "layer on a GPU; on keeps none, off keeps all. Unless it is off, what layers keep may wait "
        "in the computer's own memory where the device's is short.",
    )
    memory_budget: str = knob(
        "auto",
        title="Memory budget",
        pattern=r"^(auto|\d+(\.\d+)?\s*(B|KiB|MiB|GiB|KB|MB|GB))$",
        description='How much may be used, such as "6.5GiB". Auto: what is free on this machine.',
    )
    seed: int = knob(
        3407, title="Seed", ge=0, description="The same seed gives the same run.", advanced=True
    )
    eval_steps: int | None = knob(
        None,
        title="Evaluate every",
        ge=1,
        unit="steps",
        description="Empty: at the end of each epoch, if there are evaluation rows.",
        advanced=True,
    )
    save_steps: int = knob(
        50,
        title="Checkpoint every",
        ge=1,
        unit="steps",
        description="A stopped or crashed run continues from its last checkpoint.",
    )
    keep_checkpoints: int = knob(
        2, title="Checkpoints kept", ge=1, description="Older ones are deleted.", advanced=True
    )


class SamplesPart(Part):
    """Answers of the model while it learns."""

    sample_steps: int | None = knob(
        None,
        title="Answer every",
        ge=1,
        unit="steps",
        description="How often the model answers a few prompts, so that you see what it has learnt. "
        "It answers before the first step and after the last one too. Empty: only when you ask.",
    )
    sample_prompts: list[str] = knob(
        [],
        title="Prompts",
        description="What it is asked, one question each. Empty: the first rows that are held back "
        "for evaluation, else the first rows that it learns.",
    )
    sample_rows: int = knob(
        3,
        title="Rows",
        ge=1,
        le=20,
        description="How many rows are asked where no prompts are given.",
        advanced=True,
    )
    sample_tokens: int = knob(
        64,
        title="Longest answer",
        ge=1,
        le=2048,
        unit="tokens",
        description="Answers are cut here. Each token takes about as long as a forward pass.",
        advanced=True,
    )


class ExportPart(Part):
    """What is written when training ends."""

    formats: list[Literal["adapter", "merged_16bit", "merged_4bit", "gguf"]] = knob(
        ["adapter"],
        title="Formats",
        description="Adapter: small, needs the base model. Merged: a whole model, in 16 or in 4 bit. "
        "GGUF: one file that llama.cpp, Ollama and LM Studio run.",
    )
    gguf_quantization: list[
        Literal[
            "f32",
            "bf16",
            "f16",
            "q8_0",
            "q6_k",
            "q5_k_m",
            "q5_k_s",
            "q5_1",
            "q5_0",
            "q4_k_m",
            "q4_k_s",
            "q4_1",
            "q4_0",
            "iq4_nl",
            "iq4_xs",
            "q3_k_l",
            "q3_k_m",
            "q3_k_s",
            "q2_k",
            "q2_k_l",
            "dynamic",
        ]
    ] = knob(
        ["q4_k_m"],
        title="GGUF quantization",
        description="Bits a weight of GGUF files: q4_k_m is small and close to the model, q8_0 is "
        "as good as 16 bit, below q4 answers suffer. One file is written for each. dynamic is of "
        "q4_k_m's size, with bits where this model's answers hang on them; measuring that takes "
        "a while.",
    )


class Recipe(Part):
    """Everything that defines a fine-tuning run, in a file that a person can read and write.

    Example:
        >>> recipe = Recipe.of(model="tunebook-tiny", data="tunebook-demo", max_steps=20)
        >>> recipe.training.max_steps
        20
    """

    schema_version: Literal[1] = knob(
        1, title="Schema", description="Version of this file's layout."
    )
    name: str | None = knob(
        None,
        title="Name",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Name of the run folder. Empty: made from model, data and time.",
    )
    model: ModelPart = Field(default_factory=ModelPart, title="Model")
    data: DataPart = Field(default_factory=DataPart, title="Data")
    lora: LoraPart = Field(default_factory=LoraPart, title="LoRA")
    quantization: QuantizationPart = Field(default_factory=QuantizationPart, title="Quantization")
    training: TrainingPart = Field(default_factory=TrainingPart, title="Training")
    samples: SamplesPart = Field(default_factory=SamplesPart, title="Samples")
    export: ExportPart = Field(default_factory=ExportPart, title="Take away")

    @classmethod
    def of(cls, model: str | None = None, data: str | None = None, **knobs: Any) -> Recipe:
        """A recipe from flat names: `Recipe.of("name", "data.jsonl", r=32, max_steps=60)`.

        A name that two parts share, or any name for clarity, is written dotted: `**{"lora.r": 32}`.

        Raises:
            RecipeInvalid: a name or value is not of the recipe.
        """
        recipe = cls()
        values = dict(knobs)
        if model is not None:
            values["model.name"] = model
        if data is not None:
            values["data.source"] = data
        return recipe.with_values(values)

    @classmethod
    def parse(cls, value: Any, *, where: str = "the recipe") -> Recipe:
        """A checked recipe from nested plain data.

        Raises:
            RecipeInvalid: naming every field that is wrong.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise _invalid(error, where) from None

    @classmethod
    def load(cls, path: Path | str) -> Recipe:
        """A recipe from a `.yaml` or `.json` file.

        Raises:
            SourceMissing: there is no such file.
            RecipeInvalid: the file is not a recipe.
        """
        path = Path(path)
        if not path.is_file():
            raise SourceMissing(
                f"The recipe {path} does not exist.",
                f"there is no file at {path.absolute()}.",
                "check the path, or write one with `Recipe().save('recipe.yaml')`.",
            )
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecipeInvalid(
                f"The recipe {path} cannot be read.",
                str(error),
                "mend the file at the place named.",
            ) from None
        return cls.parse(value if value is not None else {}, where=str(path))

    def save(self, path: Path | str) -> Path:
        """Write as YAML, or as JSON if the name ends so; atomic. Returns the path."""
        path = Path(path)
        value = self.model_dump(mode="json")
        if path.suffix == ".json":
            text = json.dumps(value, indent=2) + "\n"
        else:
            text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
        write_atomic(path, text)
        return path

    def with_values(self, values: dict[str, Any]) -> Recipe:
        """A new recipe with some fields changed, named dotted (`lora.r`) or plain where unambiguous.

        Raises:
            RecipeInvalid: a name is unknown or ambiguous, or a value out of its range.
        """
        nested = self.model_dump()
        for name, value in values.items():
            part, field = resolve_field(name)
            if part is None:
                nested[field] = value
            else:
                nested[part][field] = value
        return type(self).parse(nested)

    def get(self, name: str) -> Any:
        """The value of one field by its dotted or unambiguous plain name."""
        part, field = resolve_field(name)
        return getattr(self if part is None else getattr(self, part), field)

    @property
    def effective_batch(self) -> int:
        """Rows per weight update."""
        return self.training.batch_size * self.training.gradient_accumulation_steps


PARTS: dict[str, type[Part]] = {
    "model": ModelPart,
    "data": DataPart,
    "lora": LoraPart,
    "quantization": QuantizationPart,
    "training": TrainingPart,
    "samples": SamplesPart,
    "export": ExportPart,
}


def resolve_field(name: str) -> tuple[str | None, str]:
    """The part and field that a dotted or plain name means; the part is None for the recipe's own.

    Raises:
        RecipeInvalid: there is no such field, or several.
    """
    if "." in name:
        part, field = name.split(".", 1)
        if part in PARTS and field in PARTS[part].model_fields:
            return part, field
        places = []
    elif name in Recipe.model_fields and name not in PARTS:
        return None, name
    else:
        places = [part for part, cls in PARTS.items() if name in cls.model_fields]
        if len(places) == 1:
            return places[0], name
    if places:
        choices = " or ".join(f"`{part}.{name}`" for part in places)
        raise RecipeInvalid(
            f"The recipe field `{name}` is ambiguous.",
            "several parts have it.",
            f"write {choices}.",
        )
    import difflib

    known = [f"{part}.{field}" for part, cls in PARTS.items() for field in cls.model_fields]
    close = difflib.get_close_matches(
        name, known + [item.split(".")[1] for item in known], n=3, cutoff=0.5
    )
    raise RecipeInvalid(
        f"A recipe has no field `{name}`.",
        "no part of the recipe has that name.",
        f"did you mean {', '.join(f'`{item}`' for item in close)}?"
        if close
        else "see docs/recipe.md for all fields.",
    )


def columns_of_text(text: str) -> dict[str, str] | None:
    """The mapping that `part=column, part=column` means; None for blanks.

    Raises:
        ValueError: a piece has no `=`, or nothing on one side of it.
    """
    pairs = [piece.partition("=") for piece in text.split(",") if piece.strip()]
    for part, _, column in pairs:
        if not part.strip() or not column.strip():
            raise ValueError(f"`{part.strip()}` is not written as part=column")
    return {part.strip(): column.strip() for part, _, column in pairs} or None


def columns_as_text(columns: dict[str, str]) -> str:
    """A mapping as a person types it; the other way of `columns_of_text`."""
    return ", ".join(f"{part}={column}" for part, column in columns.items())


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that readers see the old or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _invalid(error: ValidationError, where: str) -> RecipeInvalid:
    problems = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"]) or "the whole"
        got = "" if isinstance(item.get("input"), dict) else f" (got {item.get('input')!r})"
        problems.append(f"`{name}`: {item['msg']}{got}")
    first = ".".join(str(part) for part in error.errors()[0]["loc"])
    return RecipeInvalid(
        f"A value in {where} cannot be used.",
        "; ".join(problems) + ".",
        f"set `{first}` to a value in its range; docs/recipe.md lists every field.",
    )
