"""Tiny random models of several families, LoRA on them, and a tokenizer that can chat."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from families import DEVICE, FAMILIES, SIZES

TEMPLATE = (
    "{% for m in messages %}{% if m.role not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('unknown role ' + m.role) }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def tiny_model() -> Callable[..., Any]:
    """`tiny_model("qwen3")`: two random layers of that family, norm weights away from 1.

    Attention is transformers' eager one, the only one of its own that knows softcaps.
    """

    def make(family: str = "llama", **changes: Any) -> Any:
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.manual_seed(0)
        sizes = {**SIZES, "tie_word_embeddings": True, **FAMILIES[family], **changes}
        config = AutoConfig.for_model(family, **copy.deepcopy(sizes))
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                scale = 0.3 if "norm" in name else 0.1
                parameter.add_(scale * torch.randn_like(parameter))
        return model.to(DEVICE)

    return make


@pytest.fixture
def with_lora() -> Callable[..., Any]:
    """Wraps a model by LoRA on all linear layers, or as told; `tuned=True` makes it count."""

    def wrap(model: Any, *, tuned: bool = False, **changes: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(1)
        values = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **changes}
        wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **values))
        if tuned:
            with torch.no_grad():
                for name, parameter in wrapped.named_parameters():
                    if parameter.requires_grad and "lora_A" not in name:
                        parameter.add_(0.2 * torch.randn(parameter.shape).to(parameter))
        return wrapped

    return wrap


@pytest.fixture
def in_four_bits() -> Callable[..., Any]:
    """Packs a model's linear layers as QLoRA does (NF4, constants packed too), head left out."""
    bitsandbytes = pytest.importorskip("bitsandbytes")

    def pack(model: Any) -> Any:
        dtype = model.dtype
        for module in list(model.model.modules()):
            for name, linear in list(module.named_children()):
                if type(linear) is torch.nn.Linear:
                    packed = bitsandbytes.nn.Linear4bit(
                        linear.in_features, linear.out_features, linear.bias is not None,
                        compute_dtype=dtype, quant_type="nf4", device="meta",
                    )  # fmt: skip
                    packed.weight = bitsandbytes.nn.Params4bit(
                        linear.weight.data, False, quant_type="nf4", module=packed
                    )
                    packed.bias = linear.bias
                    setattr(module, name, packed.to(DEVICE))
        model.is_loaded_in_4bit = True
        return model

    return pack


@pytest.fixture
def in_eight_bits() -> Callable[..., Any]:
    """Rounds a model's linear layers to 8 bits as `load_in_8bit` does, head left out."""
    bitsandbytes = pytest.importorskip("bitsandbytes")

    def pack(model: Any) -> Any:
        for module in list(model.model.modules()):
            for name, linear in list(module.named_children()):
                if type(linear) is torch.nn.Linear:
                    packed = bitsandbytes.nn.Linear8bitLt(
                        linear.in_features, linear.out_features, linear.bias is not None,
                        has_fp16_weights=False, threshold=6.0, device="meta",
                    )  # fmt: skip
                    packed.weight = bitsandbytes.nn.Int8Params(
                        linear.weight.data.cpu(), requires_grad=False
                    )
                    packed.bias = linear.bias
                    setattr(module, name, packed.to(DEVICE))
        model.is_loaded_in_8bit = True
        return model

    return pack


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
