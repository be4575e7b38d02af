"""Vision-language models: told from their config, loaded with their processors, trained, saved, reloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors import safe_open
from tiny_vision import FAMILIES, SPECIAL_TOKENS, tiny_batch, tiny_vision
from transformers import AutoModelForImageTextToText, AutoTokenizer, Qwen2VLProcessor

from tunebook import FastLanguageModel, FastModel, FastVisionModel
from tunebook.errors import ImagesUnsupported, ModelInvalid
from tunebook.models.loading import EMBEDDED, load_config, load_model, load_shape
from tunebook.models.vision import is_vision, load_processor, towers
from tunebook.recipe import ModelPart, QuantizationPart


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each family."""
    root = tmp_path_factory.mktemp("vision")
    return {family: tiny_vision(family, root / family) for family in FAMILIES}


def logits(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**{k: v for k, v in batch.items() if k != "labels"}).logits


def trained(folder: Path, **loading: bool) -> tuple[Any, Any, dict[str, Any], list[float]]:
    """Model, processor, the batch that it learnt and the losses."""
    model, processor = FastVisionModel.from_pretrained(str(folder), **loading)
    model = FastVisionModel.get_peft_model(model, r=4)
    batch = tiny_batch(processor)
    FastVisionModel.for_training(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(6):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return FastVisionModel.for_inference(model), processor, batch, losses


def tensor_names(folder: Path) -> set[str]:
    with safe_open(str(folder / "model.safetensors"), "pt") as file:
        return set(file.keys())


def test_what_takes_pictures_is_told_from_the_config(folders):
    assert all(is_vision(load_config(ModelPart(name=str(f)))) for f in folders.values())
    assert not is_vision(load_config(ModelPart()))
    assert not is_vision({"model_type": "gemma3", "vision_config": None})


@pytest.mark.parametrize("family", FAMILIES)
def test_towers_are_found_and_cover_the_model(family, folders):
    model = load_model(ModelPart(name=str(folders[family])), QuantizationPart(bits=16))
    where = towers(model)
    outside = {name for name, _ in model.named_parameters() if where.of(name) is None}
    assert outside <= {"lm_head.weight", "model.image_newline"}
    assert all(
        model.get_submodule(part) for part in (where.vision, where.language, where.projector)
    )


def test_a_language_model_has_no_towers():
    model = load_model(ModelPart(), QuantizationPart(bits=16))
    with pytest.raises(ModelInvalid, match="no two towers"):
        towers(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_processor_is_saved_and_read_again_with_all_its_settings(family, folders, tmp_path: Path):
    processor = load_processor(ModelPart(name=str(folders[family])))
    assert processor.tokenizer.pad_token_id is not None
    assert processor.image_processor.backend == "pil"
    processor.save_pretrained(tmp_path)
    again = load_processor(ModelPart(name=str(tmp_path)))
    assert again.to_dict() == processor.to_dict()
    assert again.chat_template == processor.chat_template
    one, other = tiny_batch(processor), tiny_batch(again)
    assert all(torch.equal(one[name], other[name]) for name in one)
    video = folders[family] / "video_preprocessor_config.json"
    if video.is_file():  # kept for those who have a reader of videos
        kept = json.loads((tmp_path / "processor_config.json").read_text())["video_processor"]
        assert kept == json.loads(video.read_text())


def test_qwen_processors_are_transformers_own_and_refuse_videos(folders):
    processor = load_processor(ModelPart(name=str(folders["qwen2_vl"])))
    assert isinstance(processor, Qwen2VLProcessor)
    with pytest.raises(ImagesUnsupported, match="video"):
        processor(text=["<|video_pad|>"], videos=[[Image.new("RGB", (60, 60))] * 2])


@pytest.mark.parametrize("family", ["pixtral", "mistral3"])
def test_rows_of_a_picture_end_with_a_break_and_the_last_with_an_end(family, folders):
    processor = load_processor(ModelPart(name=str(folders[family])))
    picture = Image.new("RGB", (90, 50))
    encoded = processor(text=["[IMG]"], images=[[picture]], return_tensors="pt")
    unit = 16 if family == "pixtral" else 28
    rows, columns = -(-50 // unit), -(-90 // unit)
    expected = (["[IMG]"] * columns + ["[IMG_BREAK]"]) * rows
    tokens = processor.tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    assert tokens == [*expected[:-1], "[IMG_END]"]


def test_a_folder_without_a_processor_says_so(folders, tmp_path: Path):
    for file in folders["gemma3"].iterdir():
        if "processor" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelInvalid, match="preprocessor_config"):
        load_processor(ModelPart(name=str(tmp_path)))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_linear_layers_of_both_towers_are_quantized_and_nothing_else(family, bits, folders):
    part = ModelPart(name=str(folders[family]))
    plain = load_model(part, QuantizationPart(bits=16))
    model = load_model(part, QuantizationPart(bits=bits))
    linear = {n for n, m in plain.named_modules() if isinstance(m, torch.nn.Linear)} - {"lm_head"}
    if (family, bits) == ("mllama", 8):
        linear.remove("model.multi_modal_projector")
    kind = {4: "Linear4bit", 8: "Linear8bitLt"}[bits]
    assert {n for n, m in model.named_modules() if type(m).__name__ == kind} == linear
    batch = tiny_batch(load_processor(part))
    assert torch.isfinite(logits(model, batch)).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trained_model_is_saved_merged_and_loaded_again(family, folders, tmp_path: Path):
    model, processor, batch, losses = trained(folders[family], load_in_16bit=True)
    assert losses[-1] < 0.7 * losses[0]
    live = logits(model, batch)
    model.save_pretrained(str(tmp_path / "adapter"))
    processor.save_pretrained(str(tmp_path / "adapter"))
    merged = model.save_pretrained_merged(tmp_path / "merged", processor)
    assert tensor_names(merged) == tensor_names(folders[family])

    again, reader = FastVisionModel.from_pretrained(str(tmp_path / "adapter"), load_in_16bit=True)
    assert torch.equal(logits(again, batch), live)
    assert all(torch.equal(value, batch[name]) for name, value in tiny_batch(reader).items())
    stock = AutoModelForImageTextToText.from_pretrained(folders[family])
    stock = PeftModel.from_pretrained(stock, str(tmp_path / "adapter"))
    assert torch.equal(logits(stock, batch), live)

    again, reader = FastVisionModel.from_pretrained(str(merged), load_in_16bit=True)
    torch.testing.assert_close(logits(again, batch), live, atol=0.1, rtol=0.02)  # bfloat16 once
    assert all(torch.equal(value, batch[name]) for name, value in tiny_batch(reader).items())
    stock = AutoModelForImageTextToText.from_pretrained(merged, dtype=torch.float32)
    assert torch.equal(logits(stock, batch), logits(again, batch))

    small = model.save_pretrained_merged(tmp_path / "small", processor, "merged_4bit")
    packed, _ = FastVisionModel.from_pretrained(str(small), load_in_16bit=True)
    rounded, _ = FastVisionModel.from_pretrained(str(merged), load_in_4bit=True)
    apart = (logits(packed, batch) - logits(rounded, batch)).abs().mean()
    assert apart < 0.4 * (logits(packed, batch) - live).abs().mean()


def test_a_4_bit_model_learns_and_merges(folders, tmp_path: Path):
    model, processor, batch, losses = trained(folders["qwen2_5_vl"], load_in_4bit=True)
    assert losses[-1] < 0.7 * losses[0]
    merged = model.save_pretrained_merged(tmp_path / "merged", processor)
    again, _ = FastVisionModel.from_pretrained(str(merged), load_in_16bit=True)
    torch.testing.assert_close(logits(again, batch), logits(model, batch), atol=0.1, rtol=0.02)


def test_an_adapter_without_a_processor_takes_its_base_s(folders, tmp_path: Path):
    model, _ = FastVisionModel.from_pretrained(str(folders["smolvlm"]), load_in_16bit=True)
    model = FastVisionModel.get_peft_model(model, r=2)
    model.save_pretrained(str(tmp_path))
    AutoTokenizer.from_pretrained(str(folders["smolvlm"])).save_pretrained(str(tmp_path))
    _, processor = FastVisionModel.from_pretrained(str(tmp_path), load_in_16bit=True)
    assert type(processor).__name__ == "SmolVLMProcessor"


def test_the_general_face_chooses_by_the_config(folders):
    model, processor = FastModel.from_pretrained(str(folders["gemma3"]), load_in_16bit=True)
    assert type(processor).__name__ == "Gemma3Processor"
    model = FastModel.get_peft_model(model, r=2, finetune_vision_layers=False)
    where = towers(model)
    adapted = {
        where.of(n) for n, m in model.get_base_model().named_modules() if hasattr(m, "lora_A")
    }
    assert adapted == {"language"}
    model, tokenizer = FastModel.from_pretrained(load_in_16bit=True)
    model = FastModel.get_peft_model(model, r=2, finetune_attention_modules=False)
    names = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if hasattr(m, "lora_A")}
    assert names == {"gate_proj", "up_proj", "down_proj"}
    assert tokenizer.pad_token is not None


def test_each_face_keeps_to_its_towers(folders):
    with pytest.raises(ModelInvalid, match="takes no pictures"):
        FastVisionModel.from_pretrained(str(EMBEDDED), load_in_16bit=True)
    model, tokenizer = FastLanguageModel.from_pretrained(str(folders["gemma3"]), load_in_16bit=True)
    assert not hasattr(tokenizer, "image_processor")
    model = FastLanguageModel.get_peft_model(model, r=2)
    where = towers(model)
    adapted = {
        where.of(n) for n, m in model.get_base_model().named_modules() if hasattr(m, "lora_A")
    }
    assert adapted == {"language"}


def test_checkpointing_asked_for_at_loading_holds_until_another_is(folders):
    model, _ = FastVisionModel.from_pretrained(
        str(folders["idefics3"]), load_in_16bit=True, use_gradient_checkpointing=False
    )
    model = FastVisionModel.get_peft_model(model, r=2, random_state=1, use_rslora=True)
    assert model.tunebook_checkpointing is False
    assert model.peft_config["default"].use_rslora


def test_a_real_tokenizer_serves_too(unpacked_tokenizers: dict[str, Path], tmp_path: Path):
    folder = tiny_vision("qwen2_5_vl", tmp_path / "real", tokenizer=unpacked_tokenizers["qwen2.5"])
    part = ModelPart(name=str(folder))
    batch = tiny_batch(load_processor(part))
    model = load_model(part, QuantizationPart(bits=16))
    assert torch.isfinite(model(**batch).loss)
    shape = load_shape(part)
    assert shape.total_parameters() == sum(p.numel() for p in model.parameters())
    assert SPECIAL_TOKENS["qwen2_5_vl"]
