"""Proof that files on the disk are the model that was trained: load them again and compare.

Both models read the same words, which the live one has just said; logits and choices are compared
at every token. Knows models and files, no run and no panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tunebook.engine import model_lock, stream_tokens
from tunebook.engine.state import same_modes
from tunebook.export.commands import form_of
from tunebook.export.processors import words_of
from tunebook.models.adapters import load_adapter
from tunebook.models.loading import load_model
from tunebook.models.quiet import quiet
from tunebook.recipe import ModelPart, QuantizationPart, Recipe

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

PROMPTS = ("Hello!", "What is the capital of France?", "Write one sentence about the sea.")
_TOKENS = 24  # of each answer
_DIVERGENCE = 0.01  # nats; rounding each weight to bfloat16 once stays well below it
_AGREEMENT = 0.98
# of NF4, in a model so small that it has little to spare
_QUANTIZED = {"least_agreement": 0.8, "largest_divergence": 0.3}


class Verification(BaseModel):
    """How far a saved model is from the live one.

    `ok` if nothing is wrong with the files, it chooses the same next token in enough of the places
    and its probabilities differ by little enough on average. Files in 16 bit have to reach 98 % and
    0.01 nats (Kullback-Leibler), NF4 80 % and 0.3 nats. Of coarser GGUF files that llama.cpp ran it
    is asked instead that it computes from them what the live model does with their weights.
    """

    tokens: int
    same_choice: int
    max_difference: float
    """Of two logits."""
    divergence: float
    """Mean over the places, in nats."""
    apart: float | None = None
    """The same from the live model with the file's own weights, where that was measured."""
    least_agreement: float = _AGREEMENT
    largest_divergence: float = _DIVERGENCE
    problems: tuple[str, ...] = ()
    """What in the files is not the model's, each as half a sentence."""
    judge: str = "Loaded again"
    """Who read them, as the beginning of a sentence."""
    compared: tuple[str, ...] = ("the next token", "logits")
    """What of them was held against the model's."""

    @property
    def quantized(self) -> bool:
        """Whether what was saved has fewer bits than 16."""
        return self.largest_divergence > _DIVERGENCE

    @property
    def ok(self) -> bool:
        """Whether the files are the model."""
        agrees = self.same_choice >= self.least_agreement * self.tokens
        near = agrees and self.divergence < self.largest_divergence
        rounded = self.quantized and self.apart is not None  # how far, is the types' own matter
        return not self.problems and (near or rounded)

    @property
    def summary(self) -> str:
        """The outcome in one sentence."""
        if self.problems:
            more = f", and {len(self.problems) - 1} more" if self.problems[1:] else ""
            return f"Not the same: {self.problems[0]}{more}"
        if not self.tokens:
            return (
                f"{self.judge}: every weight, the vocabulary and the chat template are the model's"
            )
        choices = f"the same next token in {self.same_choice} of {self.tokens} places"
        largest = "every logit equal"
        if self.quantized and self.divergence:
            least = f"{self.largest_divergence:g}"
            usual = self.divergence < self.largest_divergence
            beside = f"where its type may be {least}" if usual else f"more than the usual {least}"
            largest = f"probabilities {self.divergence:.2g} nats apart on average, {beside}"
            if not usual and self.ok:
                largest += ": a larger type is closer"
        elif self.max_difference:
            largest = f"logits differ by at most {self.max_difference:.2g}"
        return f"{self.judge if self.ok else 'Not the same'}: {choices}, {largest}"


def verify(
    path: Path | str,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    *,
    prompts: Sequence[str] = PROMPTS,
    device: str | None = None,
) -> Verification:
    """Load what was saved from its folder and compare it with the live model.

    Args:
        path: a folder that `save_adapter`, `save_merged` or `save_gguf` wrote. GGUF files are read
            tensor by tensor, and by llama.cpp too where `xllamacpp` is installed.
        model: the live one, with its adapter.
        tokenizer: of a model that sees, its processor.
        recipe: names the base model that an adapter is put on.
        device: for the model that is loaded; None takes the live one's, or the CPU if it is full.

    Raises:
        ModelMissing, ModelInvalid: what was written cannot be loaded.
    """
    import torch

    words = words_of(tokenizer)
    conversations = [said(model, words, prompt) for prompt in prompts]
    if files := sorted(Path(path).glob("*.gguf")):
        from tunebook.export.gguf.verification import verify_files

        return verify_files(files, model, tokenizer, conversations)
    live = [logits(model, ids, start) for ids, start in conversations]
    loaded = _load(Path(path), recipe, device or _place(model, Path(path)))
    try:
        saved = [logits(loaded, ids, start) for ids, start in conversations]
    finally:
        del loaded
    compared = _compared(torch.cat(live), torch.cat(saved))
    quantized = form_of(Path(path)) == "merged_4bit"
    return compared.model_copy(update=_QUANTIZED) if quantized else compared


def _place(model: Any, path: Path) -> str:
    """The live model's device if a second model fits beside it, else the CPU."""
    import torch

    device: torch.device = model.get_input_embeddings().weight.device
    if device.type != "cuda":
        return str(device)
    files = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    needed = max(files, model.get_memory_footprint())
    free, _ = torch.cuda.mem_get_info(device)
    return str(device) if free > 1.3 * needed else "cpu"


def _load(path: Path, recipe: Recipe, device: str) -> Any:
    with quiet():
        if (path / "adapter_config.json").is_file():
            base = load_model(recipe.model, recipe.quantization, device=device)
            return load_adapter(base, path).eval()
        part = ModelPart(name=str(path), trust_remote_code=recipe.model.trust_remote_code)
        return load_model(part, QuantizationPart(bits=16), device=device)


def said(model: Any, tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[torch.Tensor, int]:
    """Prompt and greedy answer as ids, (1, length), and where the first compared logits are."""
    import torch

    messages = [{"role": "user", "content": prompt}]
    asked: Any = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = asked["input_ids"]
    answer = [
        token.id for token in stream_tokens(model, tokenizer, messages, max_new_tokens=_TOKENS)
    ]
    return torch.cat([ids, torch.tensor([answer], dtype=ids.dtype)], dim=1), ids.shape[1] - 1


def logits(model: Any, ids: torch.Tensor, start: int) -> torch.Tensor:
    """(tokens, vocabulary), float32, on the CPU, from the last token of the prompt on."""
    return logits_of(model, {"input_ids": ids}, start)


def logits_of(model: Any, inputs: Mapping[str, torch.Tensor], start: int) -> torch.Tensor:
    """As `logits`, of whatever a model takes."""
    import torch

    with model_lock(model), same_modes(model), torch.no_grad():
        model.eval()
        device = model.get_input_embeddings().weight.device
        placed = {name: value.to(device) for name, value in inputs.items()}
        logits: torch.Tensor = model(**placed).logits[0, start:]
        return logits.float().cpu()


def _compared(live: torch.Tensor, saved: torch.Tensor) -> Verification:
    true = live.log_softmax(-1)
    divergence = (true.exp() * (true - saved.log_softmax(-1))).sum(-1).mean()
    return Verification(
        tokens=len(live),
        same_choice=int((live.argmax(-1) == saved.argmax(-1)).sum()),
        max_difference=float((live - saved).abs().max()),
        divergence=max(0.0, float(divergence)),
    )
