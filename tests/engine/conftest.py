"""Tiny random models of several families, LoRA on them, and a tokenizer that can chat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TEMPLATE = (
    "{% for m in messages %}{% if m.role not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('unknown role ' + m.role) }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def tiny_model() -> Callable[..., Any]:
    """`tiny_model("qwen3")`: two random layers of that family, norm weights away from 1."""

    def make(family: str = "llama", **changes: Any) -> Any:
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.manual_seed(0)
        sizes = {**SIZES, "tie_word_embeddings": True, **changes}
        if family in ("qwen3", "gemma2"):
            sizes["head_dim"] = 8
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                scale = 0.3 if "norm" in name else 0.1
                parameter.add_(scale * torch.randn_like(parameter))
        return model.to(DEVICE)

    return make


@pytest.fixture
def with_lora() -> Callable[..., Any]:
    """Wraps a model by LoRA on all linear layers; `tuned=True` makes lora_B random."""

    def wrap(model: Any, *, tuned: bool = False) -> Any:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(1)
        config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
        wrapped = get_peft_model(model, config)
        if tuned:
            with torch.no_grad():
                for name, parameter in wrapped.named_parameters():
                    if "lora_B" in name:
                        parameter.normal_(0, 0.2)
        return wrapped

    return wrap


@pytest.fixture
def input_ids() -> torch.Tensor:
    """(2, 12) random ids."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(3, 300, (2, 12), generator=generator).to(DEVICE)


@pytest.fixture
def byte_tokenizer() -> Any:
    """One token a byte, a few special ones, and a chat template: characters arrive in pieces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<|end|>",
        extra_special_tokens=special[3:],
        chat_template=TEMPLATE,
    )
