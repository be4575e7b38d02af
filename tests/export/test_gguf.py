"""GGUF files are the model: llama.cpp computes the same from them, and what is not said is found out."""

from __future__ import annotations

import copy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, VOCABULARY, tiny_model

from tunebook import saving
from tunebook.errors import (
    Cancelled,
    DiskFull,
    FolderExists,
    ModelInvalid,
    VerificationFailed,
    VocabularyTooLarge,
)
from tunebook.export import Progress, save_gguf, verify
from tunebook.export.gguf import blocks
from tunebook.export.gguf.blocks import dequantize, quantize
from tunebook.export.gguf.checking import differences
from tunebook.export.gguf.judge import LlamaServer
from tunebook.export.gguf.mixes import MIXES
from tunebook.export.gguf.writer import content_of
from tunebook.export.gguf_header import read_gguf
from tunebook.export.weights import merged_weights
from tunebook.models.adapters import add_lora
from tunebook.models.loading import load_model, load_tokenizer
from tunebook.recipe import LoraPart, ModelPart, QuantizationPart, Recipe


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(ModelPart())


def written(model: Any, tokenizer: Any, folder: Path, quantization: str, **more: Any) -> Path:
    """The one file of an export."""
    save_gguf(model, tokenizer, folder, quantization=quantization, **more)
    (file,) = folder.glob("*.gguf")
    return file


def adapted(model: Any, scale: float = 0.05, **lora: Any) -> Any:
    """A model with a LoRA whose B is random, as if it had learnt something."""
    tuned = add_lora(model, LoraPart(r=4, **lora), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name or "lora_embedding_B" in name:
            noise = scale * torch.randn(parameter.shape, generator=generator)
            parameter.data = noise.to(parameter)
    return tuned.eval()


def expected(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([ids], device=model.device)).logits
        return logits[0, -1].float().log_softmax(-1).cpu()


def difference(file: Path, model: Any, ids: list[int], *, root_mean_square: bool = False) -> float:
    """Between llama.cpp's log-probabilities of the next token and torch's: largest, or over all."""
    pytest.importorskip("xllamacpp")
    with LlamaServer(file, context=256) as server:
        told = server.next_token(ids, top=VOCABULARY)
    theirs = torch.tensor([told[index] for index in range(VOCABULARY)])
    gaps = theirs - expected(model, ids)
    return float(gaps.pow(2).mean().sqrt() if root_mean_square else gaps.abs().max())


def some_ids(length: int = 40) -> list[int]:
    ids: list[int] = torch.randint(
        10, 2000, (length,), generator=torch.Generator().manual_seed(3)
    ).tolist()
    return ids


def rounded(model: Any, tokenizer: Any, mix: str) -> Any:
    """The model with every weight as a file of that mix has it.

    Blocks run along rows, so that it does not matter that the file orders the rows otherwise.
    """
    content = content_of(model, tokenizer)
    kinds = dict(zip((t.name for t in content.tensors), content.kinds(MIXES[mix]), strict=True))
    left = iter(kind for name, kind in kinds.items() if not name.startswith("rope_"))
    changed = copy.deepcopy(model)
    parameters = dict(changed.named_parameters())
    for weight in merged_weights(model):
        if weight.buffer:
            continue
        kind, parameter = next(left), parameters[weight.name]
        if "experts.gate_up_proj" in weight.name:
            assert next(left) == kind
        parameter.data = dequantize(quantize(parameter.data, kind), kind)
    return changed


@pytest.mark.parametrize("family", list(FAMILIES))
def test_llama_cpp_computes_the_same_from_every_family(
    family: str, tokenizer: Any, tmp_path: Path
) -> None:
    model = tiny_model(family)
    ids = some_ids()
    assert difference(written(model, tokenizer, tmp_path / "a", "f32"), model, ids) < 0.005
    file = written(model, tokenizer, tmp_path / "b", "q4_k_m")
    types = {tensor.type for tensor in read_gguf(file).tensors}
    assert types == {"F32", "Q4_K", "Q6_K"}
    same = rounded(model, tokenizer, "Q4_K_M")
    # llama.cpp rounds the activations too; log-probabilities spread by 1.3
    assert difference(file, same, ids, root_mean_square=True) < 0.15


@pytest.mark.parametrize(
    "name", ["BF16", "Q8_0", "Q5_K_S", "Q5_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_M", "Q2_K_L"]
)
def test_llama_cpp_reads_every_kind_of_mix(name: str, tokenizer: Any, tmp_path: Path) -> None:
    model = tiny_model("llama-3.1")
    file = written(model, tokenizer, tmp_path / "a", name.lower())
    assert file.name.endswith(f"-{name}.gguf")
    same = rounded(model, tokenizer, name)
    assert difference(file, same, some_ids(), root_mean_square=True) < 0.15


def test_a_token_that_is_half_a_character_is_told_of(tokenizer: Any, tmp_path: Path) -> None:
    """llama-server holds back what is no text yet, and its probabilities with it."""
    pytest.importorskip("xllamacpp")
    model = tiny_model("qwen3")
    halves = [tokenizer.convert_tokens_to_ids(piece) for piece in ("â", "ã")]  # bytes E2 and E3
    assert None not in halves
    with torch.no_grad():
        way = torch.randn(256, generator=torch.Generator().manual_seed(8))
        model.lm_head.weight[halves] = torch.stack([way, -way])
    file = written(model, tokenizer, tmp_path / "a", "f32")
    with LlamaServer(file, context=256) as server:
        told = server.next_token(some_ids(), top=50)
    assert max(told, key=told.__getitem__) in halves
    assert told[max(told, key=told.__getitem__)] == pytest.approx(
        float(expected(model, some_ids()).max()), abs=0.005
    )


def test_a_long_context_takes_the_other_factors(tokenizer: Any, tmp_path: Path) -> None:
    model = tiny_model("phi-3.5", original_max_position_embeddings=128)
    file = written(model, tokenizer, tmp_path / "a", "f32")
    assert difference(file, model, some_ids(200)) < 0.005


def test_the_embedded_model_with_an_adapter_is_proved_by_llama_cpp(
    tokenizer: Any, tmp_path: Path
) -> None:
    pytest.importorskip("xllamacpp")
    model = adapted(load_model(ModelPart(), QuantizationPart(bits=4)), 0.02)
    save_gguf(model, tokenizer, tmp_path / "a", quantization="q8_0", recipe=Recipe())
    assert (tmp_path / "a" / "tunebook-tiny-tuned-Q8_0.gguf").is_file()
    outcome = verify(tmp_path / "a", model, tokenizer, Recipe())
    assert outcome.ok
    assert outcome.tokens > 20
    assert outcome.summary.startswith("Run by llama.cpp: the same next token in")
    assert "token ids of a battery of texts" in outcome.compared


def test_another_model_is_not_taken_for_this_one(tokenizer: Any, tmp_path: Path) -> None:
    base = load_model(ModelPart(), QuantizationPart(bits=16))
    save_gguf(base, tokenizer, tmp_path / "a", quantization="q8_0")
    outcome = verify(tmp_path / "a", adapted(base, 0.2), tokenizer, Recipe())
    assert not outcome.ok
    assert "are off by" in outcome.summary


def test_the_embedded_model_chats_and_stops_by_its_template(tokenizer: Any, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    model = load_model(ModelPart(), QuantizationPart(bits=16))
    file = written(model, tokenizer, tmp_path / "a", "q4_k_m")
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    with LlamaServer(file) as server:
        assert server.answer(asked, tokens=40) == ("The capital of France is Paris.", "stop")


def test_a_head_that_was_trained_apart_from_its_embedding_is_written(
    tokenizer: Any, tmp_path: Path
) -> None:
    model = adapted(tiny_model("llama-3.1"), target_modules=["lm_head", "q_proj"])
    file = written(model, tokenizer, tmp_path / "a", "f32")
    assert "output.weight" in {tensor.name for tensor in read_gguf(file).tensors}
    assert difference(file, model, some_ids()) < 0.005


def test_adapters_on_experts_are_merged(tokenizer: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    names = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    model = get_peft_model(
        tiny_model("mixtral"), LoraConfig(r=4, target_modules=["q_proj"], target_parameters=names)
    ).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape)
    file = written(model, tokenizer, tmp_path / "a", "f32")
    assert difference(file, model, some_ids()) < 0.005


def test_columns_that_matter_are_kept_closer(tokenizer: Any, tmp_path: Path) -> None:
    model = tiny_model("mixtral")
    name = "blk.0.ffn_up_exps.weight"
    weights = torch.ones(4, 256)
    weights[:, ::4] = 1000
    plain = written(model, tokenizer, tmp_path / "a", "q4_k_s")
    tuned = written(model, tokenizer, tmp_path / "b", "q4_k_s", importance={name: weights})
    wanted = next(t for t in content_of(model, tokenizer).tensors if t.name == name).load()

    def error(file: Path) -> float:
        stored = next(tensor for tensor in read_gguf(file).tensors if tensor.name == name)
        data = file.read_bytes()[stored.start : stored.start + stored.bytes]
        packed = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(4, 256, -1)
        return float(((dequantize(packed, stored.type) - wanted)[..., ::4] ** 2).mean())

    assert error(tuned) < 0.9 * error(plain)


def test_several_quantizations_are_several_files(tokenizer: Any, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    recipe = Recipe().with_values({"export.gguf_quantization": ["q8_0", "q4_0"]})
    save_gguf(
        tiny_model("qwen3"),
        tokenizer,
        tmp_path / "a",
        recipe=recipe,
        progress=Progress(lambda done, total: told.append((done, total))),
    )
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    gguf = ["tunebook-tiny-Q4_0.gguf", "tunebook-tiny-Q8_0.gguf"]
    assert files == ["Modelfile", "recipe.yaml", *gguf]
    assert "FROM ./tunebook-tiny-Q8_0.gguf\n" in (tmp_path / "a" / "Modelfile").read_text()
    assert told[0][0] == 0
    assert told[-1] == (told[-1][1], told[-1][1])


def test_a_folder_with_something_in_it_is_asked_for(tokenizer: Any, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_text("years of work")
    model = tiny_model("qwen3")
    with pytest.raises(FolderExists):
        save_gguf(model, tokenizer, folder, quantization="f16")
    save_gguf(model, tokenizer, folder, quantization="f16", replace=True)
    assert (folder / "model.safetensors").read_text() == "years of work"
    assert len(list(folder.glob("*.gguf"))) == 1


def test_a_full_disk_leaves_nothing(
    tokenizer: Any, tmp_path: Path, full_disk: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("qwen3")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(DiskFull, match="the disk is full"):
            save_gguf(model, tokenizer, tmp_path / "a")
    full_disk()
    with pytest.raises(DiskFull, match="the GGUF file"):
        save_gguf(model, tokenizer, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_what_llama_cpp_does_otherwise_is_noted_for_whoever_listens(
    tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("mistral")
    model.config.sliding_window = 16
    heard = Progress(lambda _done, _total: None)
    save_gguf(model, tokenizer, tmp_path / "a", quantization="q8_0", progress=heard)
    assert any("looks back over 16 tokens" in note for note in heard.notes)
    assert caplog.messages == []
    save_gguf(model, tokenizer, tmp_path / "b", quantization="q8_0")
    assert caplog.messages == heard.notes


def test_a_stop_leaves_nothing(tokenizer: Any, tmp_path: Path) -> None:
    stop = threading.Event()
    progress = Progress(lambda done, _: stop.set() if done else None, stop)
    with pytest.raises(Cancelled):
        save_gguf(tiny_model("qwen3"), tokenizer, tmp_path / "a" / "b", progress=progress)
    assert list(tmp_path.iterdir()) == []


_SAVE = """import sys
from tunebook import saving
from tunebook.export import Progress
from tunebook.models.adapters import add_lora
from tunebook.models.loading import load_model, load_tokenizer
from tunebook.recipe import LoraPart, ModelPart, QuantizationPart
model = add_lora(load_model(ModelPart(), QuantizationPart(bits=16)), LoraPart(r=4), seed=1)
def tell(done, total):
    if done > total / 2:
        print("amid", flush=True)
        sys.stdin.read()
saving.with_saving(model).save_pretrained_gguf(
    sys.argv[1], load_tokenizer(ModelPart()), "q8_0", progress=Progress(tell)
)"""


def test_killed_amid_the_writing_it_leaves_nothing_under_the_name_and_the_next_try_is_clean(
    tokenizer: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    writing = subprocess.Popen(
        [sys.executable, "-c", _SAVE, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writing.stdout is not None
    assert b"amid\n" in iter(writing.stdout.readline, b"")
    (half,) = tmp_path.rglob("*.gguf")  # half of it is on the disk
    assert half.stat().st_size > 1_000_000
    writing.kill()
    assert writing.wait() == -signal.SIGKILL
    writing.communicate()
    assert not folder.exists()
    model = saving.with_saving(adapted(load_model(ModelPart(), QuantizationPart(bits=16))))
    assert model.save_pretrained_gguf(folder, tokenizer, "q8_0") == folder
    assert list(tmp_path.iterdir()) == [folder]
    (file,) = folder.glob("*.gguf")
    whole = content_of(model, tokenizer)
    kinds = whole.kinds(MIXES["Q8_0"])
    assert differences(file, whole.tensors, kinds, whole.vocabulary) == []


def test_blocks_that_are_not_the_weights_are_not_called_saved(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = blocks.quantize
    monkeypatch.setattr(blocks, "quantize", lambda weight, *more: real(weight.flip(0), *more))
    with pytest.raises(VerificationFailed, match=r"the weights of .* are off"):
        save_gguf(tiny_model("qwen3"), tokenizer, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_that_is_not_the_tokenizers_is_found_out(
    tokenizer: Any, tmp_path: Path
) -> None:
    model = tiny_model("qwen3")
    file = written(model, tokenizer, tmp_path / "a", "q8_0")
    data = file.read_bytes()
    file.write_bytes(data.replace(b"<|assistant|>", b"<|ASSISTANT|>"))
    outcome = verify(tmp_path / "a", model, tokenizer, Recipe())
    assert not outcome.ok
    assert outcome.problems == (
        f"in {file.name} tokenizer.ggml.tokens is not the tokenizer's",
        f"in {file.name} tokenizer.chat_template is not the tokenizer's",
    )


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "q8_0"), (1e6, "f16")])
def test_weights_that_cannot_be_written_are_named(
    value: float, kind: str, tokenizer: Any, tmp_path: Path
) -> None:
    model = tiny_model("qwen3")
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = value
    with pytest.raises(ModelInvalid, match=r"layers\.1\.mlp\.up_proj|blk\.1\.ffn_up"):
        save_gguf(model, tokenizer, tmp_path / "a", quantization=kind)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_family_is_told_what_is_known(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=64, n_head=2, vocab_size=64))
    with pytest.raises(ModelInvalid, match=r"gemma.*llama.*qwen2"):
        save_gguf(model, tokenizer, tmp_path / "a")


@pytest.mark.parametrize(
    ("family", "changed", "field"),
    [
        ("qwen3-moe", {"norm_topk_prob": False}, "norm_topk_prob"),
        ("gemma-2", {"query_pre_attn_scalar": 100}, "query_pre_attn_scalar"),
        ("llama with biases", {"hidden_act": "gelu"}, "hidden_act"),
        (
            "qwen3",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "rope_type",
        ),
    ],
)
def test_a_variant_that_llama_cpp_computes_otherwise_is_refused(
    family: str, changed: dict[str, Any], field: str, tokenizer: Any, tmp_path: Path
) -> None:
    with pytest.raises(ModelInvalid, match=field):
        save_gguf(tiny_model(family, **changed), tokenizer, tmp_path / "a")


def test_a_vocabulary_larger_than_the_embedding_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(VocabularyTooLarge):
        save_gguf(tiny_model("qwen3", vocab_size=1024), tokenizer, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.llama_cpp
@pytest.mark.parametrize("name", [name for name in MIXES if name != "Q2_K_L"])
def test_types_are_those_of_llama_model_quantize(name: str, tokenizer: Any, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    import ctypes

    model = tiny_model("llama-3.1", num_hidden_layers=8)
    whole = written(model, tokenizer, tmp_path / "a", "f32")
    ours = written(model, tokenizer, tmp_path / "b", name.lower())
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = int(MIXES[name].file_type)
    theirs = tmp_path / "theirs.gguf"
    assert not llama_cpp.llama_model_quantize(
        str(whole).encode(), str(theirs).encode(), ctypes.byref(parameters)
    )
    types = [
        {tensor.name: tensor.type for tensor in read_gguf(file).tensors} for file in (ours, theirs)
    ]
    assert types[0] == types[1]
