"""Find, size and load base models and their tokenizers, from the package, a folder or the hub.

Weights come from safetensors only and remote code stays off unless the recipe turns it on. This
module knows nothing of adapters or data.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunebook.errors import ModelInvalid, ModelMissing, TokenizerMissing
from tunebook.models import catalog
from tunebook.models.quiet import quiet
from tunebook.models.shape import ModelShape
from tunebook.models.vision import is_vision
from tunebook.recipe import ModelPart, QuantizationPart

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = Path(__file__).parent / "embedded"
EMBEDDED_NAME = "tunebook-tiny"
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_PAD_TOKENS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]", "<|vision_pad|>", "<unk>")


@dataclass(frozen=True)
class ResolvedModel:
    """Where a model's files are: `location` is a folder, or an id of the hub."""

    location: str
    source: Literal["embedded", "folder", "hub"]


def resolve_model(name: str) -> ResolvedModel:
    """Find the model that a user's name means; looks at the disk but not at the network.

    Raises:
        ModelMissing: no catalogue entry, no folder, and not the form of a hub id.
        ModelInvalid: a folder without `config.json`.
    """
    entry = catalog.find(name)
    if entry is not None and entry.embedded:
        return ResolvedModel(str(EMBEDDED), "embedded")
    folder = Path(name).expanduser()
    if name.strip() and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelInvalid(
                f"The folder {name} is not a model.",
                "it holds no config.json.",
                "give the folder that `save_pretrained` wrote, or a name of the catalogue.",
            )
        return ResolvedModel(str(folder), "folder")
    if entry is not None and entry.hub_id:
        return ResolvedModel(entry.hub_id, "hub")
    if _HUB_ID.match(name):
        return ResolvedModel(name, "hub")
    raise _missing(name, "it is no folder, no name of the catalogue and no hub id (owner/name).")


def load_config(part: ModelPart, *, token: str | None = None) -> dict[str, Any]:
    """The model's `config.json` as plain data; from the hub only that one file is fetched.

    Args:
        part: which model.
        token: for private hub models; used here and kept nowhere.

    Raises:
        ModelMissing: the hub has no such model, or cannot be reached.
        ModelInvalid: the file is not JSON.
    """
    resolved = resolve_model(part.name)
    path = Path(resolved.location) / "config.json"
    if resolved.source == "hub":
        path = Path(_from_hub(part, resolved.location, "config.json", token))
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelInvalid(
            f"The configuration of {part.name} cannot be read.",
            str(error),
            "download the model again.",
        ) from error
    return config


def load_shape(part: ModelPart) -> ModelShape:
    """The model's shape, from the catalogue where it stands there, else from its `config.json`."""
    entry = catalog.find(part.name)
    if entry is not None and not Path(part.name).is_dir():
        return entry.shape
    config = load_config(part)
    return ModelShape.from_config(config, _picture_settings(part) if is_vision(config) else None)


def _picture_settings(part: ModelPart) -> dict[str, Any]:
    """A local model's settings of its pictures' processor; of the hub's models the published ones serve."""
    resolved = resolve_model(part.name)
    for name in ("processor_config.json", "preprocessor_config.json"):
        file = Path(resolved.location) / name
        if resolved.source == "folder" and file.is_file():
            settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if found := settings.get("image_processor", settings if "size" in settings else None):
                return dict(found)
    return {}


def load_tokenizer(part: ModelPart, *, token: str | None = None) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a padding token set.

    Args:
        part: which model.
        token: for private hub models; used here and kept nowhere.

    Raises:
        TokenizerMissing: the folder holds no tokenizer.
        ModelMissing: the hub has no such model, or cannot be reached.
    """
    from transformers import AutoTokenizer

    resolved = resolve_words(part.name)
    if resolved.source != "hub":
        folder = Path(resolved.location)
        if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
            raise _no_tokenizer(part.name, f"{folder} holds none of {', '.join(_TOKENIZER_FILES)}.")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            resolved.location,
            revision=part.revision,
            trust_remote_code=part.trust_remote_code,
            token=token,
        )
    except (OSError, ValueError, KeyError) as error:
        if resolved.source == "hub":
            raise _hub_error(part, error) from error
        raise _no_tokenizer(part.name, f"loading it failed: {error}") from error
    if tokenizer.pad_token is None:
        vocabulary = tokenizer.get_vocab()
        tokenizer.pad_token = next(
            (token for token in _PAD_TOKENS if token in vocabulary), tokenizer.eos_token
        )
    return tokenizer


def resolve_words(name: str) -> ResolvedModel:
    """Where a model's tokenizer and processor are; an adapter's folder has its own.

    Raises:
        ModelMissing, ModelInvalid: see `resolve_model`.
    """
    folder = Path(name).expanduser()
    own = ResolvedModel(str(folder), "folder") if name.strip() and folder.is_dir() else None
    return own or resolve_model(name)


def load_model(
    part: ModelPart,
    quantization: QuantizationPart,
    *,
    device: str | None = None,
    token: str | None = None,
) -> PreTrainedModel:
    """Load the base weights, quantized as asked, in evaluation mode.

    Args:
        part: which model and in which compute dtype.
        quantization: 4 bit (NF4 or FP4) or 8 bit by bitsandbytes, or 16 bit.
        device: such as "cpu" or "cuda:0"; None takes the first GPU, else the CPU.
        token: for private hub models; used here and kept nowhere.

    Raises:
        ModelMissing, ModelInvalid: see `resolve_model`; also when the weights do not load.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    from tunebook_kernels import start_up

    resolved = resolve_model(part.name)
    config = load_config(part, token=token)
    sees = is_vision(config)
    kind: Any = (
        transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
    )
    device = device or default_device()
    start_up(torch.device(device))  # while weights are read
    dtype = compute_dtype(part, device)
    arguments: dict[str, Any] = {
        "dtype": dtype,
        "device_map": {"": device},
        "revision": part.revision,
        "trust_remote_code": part.trust_remote_code,
        "use_safetensors": True,
        "token": token,
    }
    if quantization.bits != 16:
        arguments["quantization_config"] = _bitsandbytes(quantization, dtype, config)
    try:
        with quiet():
            model: Any = kind.from_pretrained(resolved.location, **arguments)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        if resolved.source == "hub" and isinstance(error, OSError):
            raise _hub_error(part, error) from error
        raise ModelInvalid(
            f"The model {part.name} could not be loaded.",
            f"{type(error).__name__}: {error}",
            "check that the folder holds safetensors weights that belong to its config.json.",
        ) from error
    _keep_trainable(model)
    _in_one_dtype(model, dtype)
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None:
        model.set_attn_implementation("eager")  # transformers up to 5.17 drops it in all others
    model.eval()
    loaded: PreTrainedModel = model
    return loaded


def adapter_base(name: str) -> str | None:
    """The name of the base model if `name` is an adapter folder, else None."""
    path = Path(name).expanduser() / "adapter_config.json"
    if not path.is_file():
        return None
    base: str | None = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    return base


def portable_name(location: str) -> str:
    """What to call a loaded model in files that may go to another machine."""
    return EMBEDDED_NAME if Path(location) == EMBEDDED else location


def default_device() -> str:
    """The first GPU if torch sees one, else the CPU."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def compute_dtype(part: ModelPart, device: str) -> torch.dtype:
    """The dtype of the arithmetic: what the recipe says, else by what the device does well."""
    import torch

    if part.dtype != "auto":
        dtype: torch.dtype = getattr(torch, part.dtype)
        return dtype
    if not device.startswith("cuda"):
        return torch.float32
    # bf16 is emulated, and slow, below compute capability 8
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def _bitsandbytes(
    quantization: QuantizationPart, dtype: torch.dtype, config: dict[str, Any]
) -> Any:
    from transformers import BitsAndBytesConfig as Config

    configure: Any = Config
    if quantization.bits == 8:
        # LLM.int8 takes no input of five dimensions, as Llama's projector has, on a CPU
        kept = (
            ["lm_head", "multi_modal_projector"] if config.get("model_type") == "mllama" else None
        )
        return configure(load_in_8bit=True, llm_int8_skip_modules=kept)
    return configure(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.quant_type,
        bnb_4bit_use_double_quant=quantization.double_quant,
        bnb_4bit_compute_dtype=dtype,
    )


def _keep_trainable(model: PreTrainedModel) -> None:
    """Stop bitsandbytes from repacking 4-bit weights in the first answer given on a CPU.

    Where the CPU has AVX512-BF16, a forward in evaluation mode turns the weights into a form whose
    product has no gradient (bitsandbytes 0.50.2, `Linear4bit.forward`): training after a chat or an
    evaluation would go on without an error and learn nothing.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.__dict__["support_avx512bf16_for_cpu"] = False


def _in_one_dtype(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give weights of the other 16-bit format, or of 16 bits in a float32 model, the model's own.

    Of a checkpoint that is stored in 4 bit, transformers leaves matrices and norms as they are stored
    and only casts biases; layers that want both alike, as those of vision towers, would fail.
    """
    import torch

    for parameter in model.parameters():
        if parameter.dtype in (torch.bfloat16, torch.float16) and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)


def _from_hub(part: ModelPart, location: str, file: str, token: str | None) -> str:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path: str = hf_hub_download(location, file, revision=part.revision, token=token)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise _hub_error(part, error) from error
    return path


def _hub_error(part: ModelPart, error: Exception) -> ModelMissing:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return _missing(part.name, f"the Hugging Face hub gave no such model: {reason}")


def _missing(name: str, why: str) -> ModelMissing:
    close = catalog.suggest(name)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    local = " (a folder must exist)" if os.sep in name else ""
    return ModelMissing(
        f"There is no model named {name!r}{local}.",
        why,
        f"{hint}Offline, `tunebook-tiny` always works; for a private model log in with `hf auth login`.",
    )


def _no_tokenizer(name: str, why: str) -> TokenizerMissing:
    return TokenizerMissing(
        f"The model {name} has no tokenizer.",
        why,
        "save the tokenizer into the model's folder with `tokenizer.save_pretrained(folder)`.",
    )
