"""GGUF files of models that see: llama.cpp sees the same picture and says the same of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_seeing import tiny_seeing

from tunebook.errors import ModelInvalid, RecipeInvalid, TokenizerUnsupported, VerificationFailed
from tunebook.export import Progress, predicted_sizes, save_gguf, verify
from tunebook.export.commands import usage
from tunebook.export.gguf import blocks
from tunebook.export.gguf.judge import LlamaServer, picture_part
from tunebook.export.gguf.showing import Shown, picture, png
from tunebook.export.gguf.vision_families import VISION_FAMILIES
from tunebook.export.gguf.writer import content_of
from tunebook.export.gguf_header import read_gguf
from tunebook.export.inspect import inspect_file
from tunebook.export.verification import logits_of
from tunebook.models.adapters import add_lora
from tunebook.models.loading import load_model
from tunebook.models.shape import ModelShape
from tunebook.models.vision import load_processor
from tunebook.recipe import LoraPart, ModelPart, QuantizationPart, Recipe
from tunebook.widgets._exports import written_form

SAME = 0.005
"""Largest difference of two log-probabilities, which spread by 0.8; of a file in 32 bit."""
FAMILIES = (
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3"),
    *("pixtral", "mistral3", "smolvlm", "idefics3"),
)


def written(
    model: Any, processor: Any, folder: Path, quantization: str = "f32", **more: Any
) -> tuple[Path, Path]:
    """The two files of an export: language and projector."""
    save_gguf(model, processor, folder, quantization=quantization, **more)
    eyes, rest = (
        [file for file in folder.glob("*.gguf") if file.name.startswith("mmproj-") is which]
        for which in (True, False)
    )
    (projector,), (language,) = eyes, rest
    return language, projector


def adapted(model: Any, scale: float = 0.2) -> Any:
    """A model with a LoRA on both towers whose B is random, as if it had learnt something."""
    tuned = add_lora(model, LoraPart(r=4), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return tuned.eval()


def differences(model: Any, processor: Any, files: tuple[Path, Path], *seeds: int) -> list[float]:
    """Of the log-probabilities of every token, at every place of an answer to each picture."""
    pytest.importorskip("xllamacpp")
    content, found = content_of(model, processor), []
    with LlamaServer(files[0], context=512, projector=files[1]) as server:
        for seed in seeds:
            shown = Shown.of(content, processor, seed)
            gaps = [
                true[list(told)] - torch.tensor(list(told.values()))
                for true, told in shown.places(server, model, top=len(processor.tokenizer))
            ]
            found.append(max(float(gap.abs().max()) for gap in gaps))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_sees_what_every_family_sees(family: str, tmp_path: Path) -> None:
    model, processor = tiny_seeing(family, tmp_path)
    files = written(model, processor, tmp_path / "gguf")
    assert max(differences(model, processor, files, 1, 2)) < SAME
    content = content_of(model, processor)
    first, other = (
        logits_of(model, Shown.of(content, processor, seed).inputs, -1)[0].log_softmax(-1)
        for seed in (1, 2)
    )
    assert float((first - other).abs().max()) > 0.3  # so the pictures matter
    header = read_gguf(files[1])
    assert header.values["general.type"] == "mmproj"
    assert header.values["clip.projector_type"] == content.projector.family.projector


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "smolvlm"])
def test_an_adapter_on_both_towers_is_merged_into_both_files(family: str, tmp_path: Path) -> None:
    base, processor = tiny_seeing(family, tmp_path)
    before = written(base, processor, tmp_path / "before")
    tuned = adapted(base)
    after = written(tuned, processor, tmp_path / "after")
    assert max(differences(tuned, processor, after, 1)) < SAME
    for files in ((before[0], after[1]), (after[0], before[1])):  # each half of it matters
        assert max(differences(tuned, processor, files, 1)) > 0.1


@pytest.mark.parametrize(("kind", "most"), [("f16", 0.02), ("bf16", 0.1), ("q8_0", 0.3)])
def test_every_type_of_the_projector_file_is_read(kind: str, most: float, tmp_path: Path) -> None:
    model, processor = tiny_seeing("qwen2_vl", tmp_path)
    files = written(model, processor, tmp_path / "gguf", projector=kind)
    types = {tensor.type for tensor in read_gguf(files[1]).tensors}
    assert types == {"F32", kind.upper()} | ({"F16"} if kind == "q8_0" else set())
    assert max(differences(model, processor, files, 1)) < most


def test_a_llava_without_class_token_is_seen_alike(tmp_path: Path) -> None:
    tower = {"model_type": "siglip_vision_model", "vision_use_head": False}
    model, processor = tiny_seeing(
        "llava_next",
        tmp_path,
        vision_config=tower,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[56, 56]],
    )
    files = written(model, processor, tmp_path / "gguf")
    assert _llava_difference(model, processor, files, class_token="none") < SAME


def test_llama_cpp_puts_the_class_token_of_a_llava_behind_the_patches(tmp_path: Path) -> None:
    model, processor = tiny_seeing("llava_next", tmp_path)
    heard = Progress(lambda _done, _total: None)
    files = written(model, processor, tmp_path / "gguf", progress=heard)
    assert any("class token" in note for note in heard.notes)
    assert any("one view" in note for note in heard.notes)
    assert _llava_difference(model, processor, files, class_token="behind") < SAME
    assert _llava_difference(model, processor, files, class_token="before") > 0.1


def _llava_difference(model: Any, processor: Any, files: Any, *, class_token: str) -> float:
    """From a LLaVA computed here from one view of the picture, its class token where it is said to be."""
    pytest.importorskip("xllamacpp")
    image = picture((56, 56))
    pixels = processor.image_processor(image, return_tensors="pt")["pixel_values"][0, :1]
    tower, embeds = model.model.vision_tower, model.model.vision_tower.embeddings
    patches = embeds.patch_embedding(pixels).flatten(2).transpose(1, 2)
    if class_token != "none":
        token = embeds.class_embedding.expand(1, 1, -1)
        both = [token, patches] if class_token == "before" else [patches, token]
        hidden = tower.pre_layrnorm(torch.cat(both, 1) + embeds.position_embedding.weight)
    else:
        hidden = patches + embeds.position_embedding.weight
    for layer in tower.encoder.layers[:-1]:
        made = layer(hidden, attention_mask=None)
        hidden = made[0] if isinstance(made, tuple) else made
    seen = model.model.multi_modal_projector(hidden if class_token == "none" else hidden[:, 1:])[0]
    words = model.get_input_embeddings()
    before, behind = (
        words(processor.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[0])
        for text in ("<s>[INST]", "What?[/INST]")
    )
    whole = torch.cat([before, seen, behind])[None]
    last = model.model.language_model(inputs_embeds=whole).last_hidden_state[0, -1]
    true = model.lm_head(last).log_softmax(-1).detach()
    parts = [picture_part(png(image)), {"type": "text", "text": "What?"}]
    with LlamaServer(files[0], projector=files[1]) as server:
        messages = [{"role": "user", "content": parts}]
        ((_, told),) = server.answer_to_picture(messages, tokens=1, top=len(true))
    return float((true[list(told)] - torch.tensor(list(told.values()))).abs().max())


def test_the_prompt_of_a_picture_is_the_one_of_training(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    model, processor = tiny_seeing("gemma3", tmp_path)
    files = written(model, processor, tmp_path / "gguf")
    image = picture((56, 56))
    talk = [
        ("user", ["What is", image, "in these", image, "two?"]),
        ("assistant", ["Nothing."]),
        ("user", ["Sure?"]),
    ]

    def messages(part: Any) -> list[dict[str, Any]]:
        return [
            {
                "role": role,
                "content": [
                    {"type": "text", "text": item} if isinstance(item, str) else part(item)
                    for item in items
                ],
            }
            for role, items in talk
        ]

    ours = processor.apply_chat_template(
        messages(lambda item: {"type": "image", "image": item}),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )["input_ids"][0]
    seen = processor.tokenizer.decode(ours).replace("<image_soft_token>" * 4, "")
    with LlamaServer(files[0], projector=files[1]) as server:
        theirs = server.prompt(messages(lambda item: picture_part(png(item))))
    marker = theirs[theirs.index("<__media") : theirs.index("__>") + 3]
    assert theirs.replace(marker, "<start_of_image><end_of_image>") == seen


def test_both_files_are_proved_on_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    model, processor = tiny_seeing("qwen2_vl", tmp_path)
    _, projector = written(model, processor, tmp_path / "gguf", recipe=Recipe())
    outcome = verify(tmp_path / "gguf", model, processor, Recipe())
    assert outcome.ok, outcome.summary
    assert "a picture" in outcome.compared
    other, _ = tiny_seeing("qwen2_vl", tmp_path / "other", seed=3)
    other.model.language_model.load_state_dict(model.model.language_model.state_dict())
    other.lm_head.load_state_dict(model.lm_head.state_dict())
    outcome = verify(tmp_path / "gguf", other, processor, Recipe())
    assert not outcome.ok
    assert f"in {projector.name} the weights of v." in outcome.summary
    projector.unlink()
    outcome = verify(tmp_path / "gguf", model, processor, Recipe())
    assert "the file with the vision tower is missing" in outcome.summary


def test_a_projector_file_that_is_not_the_towers_is_not_called_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = tiny_seeing("pixtral", tmp_path)
    real = blocks.quantize

    def swapped(weight: Any, kind: str, *more: Any) -> Any:
        return real(weight.flip(0) if kind == "F16" else weight, kind, *more)

    monkeypatch.setattr(blocks, "quantize", swapped)
    with pytest.raises(VerificationFailed, match=r"mmproj-[\s\S]*the weights of v\..* are off"):
        save_gguf(model, processor, tmp_path / "gguf", quantization="q8_0")
    assert not (tmp_path / "gguf").exists()


def test_what_is_beside_the_files_names_both(tmp_path: Path) -> None:
    model, processor = tiny_seeing("smolvlm", tmp_path)
    folder = tmp_path / "gguf"
    language, projector = written(model, processor, folder, "q8_0")
    modelfile = (folder / "Modelfile").read_text(encoding="utf-8")
    assert f"FROM ./{language.name}\nFROM ./{projector.name}\n" in modelfile
    for place in (folder, language, projector):
        lines = dict(usage("gguf", str(place), Recipe()))
        for title in ("llama.cpp, as a server", "llama.cpp, in the terminal"):
            assert f"-m {language} --mmproj {projector}" in lines[title]
        assert f"cp {language} {projector} ~/.lmstudio/models/" in lines["LM Studio"]
    names = sorted(file.name for file in folder.iterdir())
    on_the_hub = dict(usage("gguf", "owner/name", Recipe(), files=[projector.name, *names]))
    assert "owner/name:Q8_0" in on_the_hub["llama.cpp, as a server"]
    told = str(inspect_file(projector))
    assert "Architecture: clip" in told
    assert "Layers: 2" in told
    save_gguf(model, processor, folder, quantization="q8_0", projector="f32", replace=True)
    assert [file.name for file in folder.glob("mmproj-*")] == [f"mmproj-{_stem(language)}-F32.gguf"]


def _stem(language: Path) -> str:
    return language.name.removesuffix("-Q8_0.gguf")


def test_an_unknown_family_is_told_what_is_known(tmp_path: Path) -> None:
    model, processor = tiny_seeing("mllama", tmp_path)
    with pytest.raises(ModelInvalid, match=r"'mllama'.*\n.*gemma3.*qwen2_5_vl.*smolvlm"):
        save_gguf(model, processor, tmp_path / "gguf")
    assert not (tmp_path / "gguf").exists()


@pytest.mark.parametrize(
    ("family", "part", "changed", "named"),
    [
        ("qwen2_5_vl", "vision_config", {"window_size": 56}, "window_size"),
        ("qwen2_5_vl", "vision_config", {"fullatt_block_indexes": [0]}, "fullatt_block_indexes"),
        ("gemma3", "vision_config", {"hidden_act": "relu"}, "hidden_act"),
        ("qwen2_vl", "text_config", {"use_sliding_window": True}, "use_sliding_window"),
    ],
)
def test_a_variant_that_llama_cpp_computes_otherwise_is_refused(
    family: str, part: str, changed: dict[str, Any], named: str, tmp_path: Path
) -> None:
    model, processor = tiny_seeing(family, tmp_path)
    for name, value in changed.items():
        setattr(getattr(model.config, part), name, value)
    with pytest.raises(ModelInvalid, match=named):
        save_gguf(model, processor, tmp_path / "gguf")
    assert not (tmp_path / "gguf").exists()


def test_what_is_missing_is_said_before_anything_is_written(tmp_path: Path) -> None:
    model, processor = tiny_seeing("smolvlm", tmp_path)
    model.name_or_path = str(tmp_path / "elsewhere")
    with pytest.raises(ModelInvalid, match="give the model's processor"):
        save_gguf(model, processor.tokenizer, tmp_path / "gguf")
    with pytest.raises(RecipeInvalid, match="q4_k_m"):
        save_gguf(model, processor, tmp_path / "gguf", projector="q4_k_m")
    state = processor.tokenizer.backend_tokenizer.to_str()
    broken = state.replace('["Ċ","Ċ"]', '["Ċ","a"]').replace("ĊĊ", "Ċa")
    processor.tokenizer._tokenizer = type(processor.tokenizer.backend_tokenizer).from_str(broken)
    with pytest.raises(TokenizerUnsupported, match=r"'\\n\\n'"):
        save_gguf(model, processor, tmp_path / "gguf")
    assert not (tmp_path / "gguf").exists()


def test_of_a_tokenizer_alone_the_processor_beside_the_model_is_taken(tmp_path: Path) -> None:
    model, processor = tiny_seeing("qwen2_vl", tmp_path)
    both = written(model, processor, tmp_path / "both", "q8_0")
    alone = written(model, processor.tokenizer, tmp_path / "alone", "q8_0")
    assert [file.read_bytes() for file in alone] == [file.read_bytes() for file in both]


def test_a_model_in_4_bit_is_written_from_its_own_weights(tmp_path: Path) -> None:
    tiny_seeing("qwen2_5_vl", tmp_path)
    part = ModelPart(name=str(tmp_path / "model"))
    model = adapted(load_model(part, QuantizationPart(bits=4)))
    processor = load_processor(part)
    files = written(model, processor, tmp_path / "gguf")
    assert max(differences(model, processor, files, 1)) < SAME


def test_importance_is_measured_on_the_language_tower(tmp_path: Path) -> None:
    model, processor = tiny_seeing("qwen2_vl", tmp_path, text_config={"intermediate_size": 256})
    rows = [[20 + n % 200 for n in range(40)]] * 4
    language, _ = written(
        model, processor, tmp_path / "gguf", "q4_k_m", importance="auto", calibration=rows
    )
    header = read_gguf(language)
    assert header.values["quantize.imatrix.entries_count"] > 10
    assert "Q4_K" in {tensor.type for tensor in header.tensors}


def test_the_panel_lists_both_files_and_knows_their_size(tmp_path: Path) -> None:
    model, processor = tiny_seeing("qwen2_5_vl", tmp_path)
    recipe = Recipe().with_values({"export.gguf_quantization": ["f16", "q8_0"]})
    folder = save_gguf(model, processor, tmp_path / "gguf", recipe=recipe)
    run = SimpleNamespace(recipe=recipe, log=SimpleNamespace(of=lambda _kind: []))
    form = written_form("gguf", folder, run, ["f16", "q8_0"])
    assert [part["title"] for part in form["parts"]] == ["F16", "Q8_0", "Vision tower, F16"]
    assert all("--mmproj" in part["usage"][0][1] for part in form["parts"])
    shape = ModelShape.from_config(model.config.to_dict())
    stored = sum(
        tensor.bytes for file in folder.glob("*.gguf") for tensor in read_gguf(file).tensors
    )
    assert predicted_sizes(recipe, shape)["gguf"] == pytest.approx(stored, rel=0.03)


def test_the_table_has_every_family_that_the_documentation_names(project_root: Path) -> None:
    text = (project_root / "docs" / "export.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in VISION_FAMILIES)
