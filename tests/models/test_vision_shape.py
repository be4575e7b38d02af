"""What a picture costs is what the processor makes of it; what a tower counts is what transformers builds."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from published_vision import CONFIGS
from tiny_vision import FAMILIES, tiny_config, tiny_tokenizer, tiny_vision
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.image_processing_utils import select_best_resolution
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.mllama.image_processing_pil_mllama import get_optimal_tiled_canvas
from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from tunebook.models.catalog import find
from tunebook.models.loading import load_shape
from tunebook.models.shape import ModelShape
from tunebook.models.vision import load_processor, towers
from tunebook.models.vision_shape import ImageCost, VisionShape, fit_pixels
from tunebook.models.vision_sizes import TOWER_DEFAULTS
from tunebook.recipe import ModelPart

IN_TEXT = {
    "gemma3": "<start_of_image>",
    "mllama": "<|image|>",
    "pixtral": "[IMG]",
    "mistral3": "[IMG]",
}
COUNTED = {**IN_TEXT, "gemma3": "<image_soft_token>"}


def sizes(count: int, largest: int, seed: int = 0) -> list[tuple[int, int]]:
    """Widths and heights, small and large, square and long, and some that are even multiples."""
    draw = random.Random(seed)
    fixed = [
        (28, 28),
        (56, 112),
        (112, 56),
        (64, 64),
        (128, 64),
        (1, 1),
        (3, 200),
        (200, 3),
        (57, 29),
    ]
    free = [(int(largest ** draw.random()), int(largest ** draw.random())) for _ in range(count)]
    return [size for size in fixed + free if max(size) <= 200 * min(size)]


def published(name: str) -> VisionShape:
    shape = VisionShape.from_config(CONFIGS[name])
    assert shape is not None
    return shape


def measured(family: str, processor: Any, size: tuple[int, int], **options: Any) -> ImageCost:
    """What the processor really makes of a picture of this size."""
    image = Image.fromarray(np.zeros((size[1], size[0], 3), dtype=np.uint8))
    default = "<|image_pad|>" if family.startswith("qwen") else "<image>"
    words = [IN_TEXT.get(family, default)]
    made = processor(text=words, images=[[image]], return_tensors="pt", **options)
    counted = processor.tokenizer.convert_tokens_to_ids(COUNTED.get(family, default))
    tokens = int((made["input_ids"] == counted).sum())
    pixels = made["pixel_values"]
    if family.startswith("qwen"):
        _, rows, columns = made["image_grid_thw"][0].tolist()
        patch = processor.image_processor.patch_size
        return ImageCost(columns * patch, rows * patch, len(pixels), tokens)
    if family in ("pixtral", "mistral3"):
        height, width = made["image_sizes"][0].tolist()
        patch = processor.patch_size
        return ImageCost(width, height, (width // patch) * (height // patch), tokens)
    side = pixels.shape[-1]
    if family == "gemma3":
        return ImageCost(side, side, (side // 14) ** 2, tokens)
    if family == "mllama":
        tiles = int(made["aspect_ratio_mask"].sum())
        # ids count the tile arrangements of up to four, by rows and then by columns
        arrangements = [(r, c) for r in range(1, 5) for c in range(1, 5) if r * c <= 4]
        rows, columns = arrangements[int(made["aspect_ratio_ids"]) - 1]
        return ImageCost(columns * side, rows * side, 4 * ((side // 14) ** 2 + 1), tokens, tiles)
    tiles = pixels.shape[1]
    if family == "llava_next":
        points = [tuple(point) for point in processor.image_processor.image_grid_pinpoints]
        height, width = select_best_resolution((size[1], size[0]), points)
        return ImageCost(width, height, tiles * ((side // 14) ** 2 + 1), tokens, tiles)
    text = processor.tokenizer.decode(made["input_ids"][0])
    rows, columns = (
        max([n for n in range(1, 7) if mark.format(n) in text], default=1)
        for mark in ("<row_{}_col_1>", "<row_1_col_{}>")
    )
    return ImageCost(columns * side, rows * side, tiles * (side // 16) ** 2, tokens, tiles)


def _vanishes(size: tuple[int, int], shape: VisionShape) -> bool:
    """Whether Pixtral's processor would shrink a side to nothing, and fail."""
    return min(size) * (shape.longest_edge or 0) < max(size)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[VisionShape, Any]]:
    """Shape and processor of a tiny model of each family."""
    root = tmp_path_factory.mktemp("shapes")
    found = {}
    for family in FAMILIES:
        part = ModelPart(name=str(tiny_vision(family, root / family)))
        shape = load_shape(part).vision
        assert shape is not None
        found[family] = (shape, load_processor(part))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_costs_what_the_processor_makes_of_it(family, made):
    shape, processor = made[family]
    for size in sizes(40, 700):
        if shape.longest_edge and family not in ("idefics3", "smolvlm") and _vanishes(size, shape):
            with pytest.raises(ValueError, match="nothing"):
                shape.cost(*size)
        else:
            assert shape.cost(*size) == measured(family, processor, size), size


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_qwen_s_limits_of_pixels_are_the_processor_s(family, made):
    shape, processor = made[family]
    limits = {"min_pixels": 20_000, "max_pixels": 30_000}
    size = {"shortest_edge": 20_000, "longest_edge": 30_000}
    for asked in sizes(20, 700, seed=1):
        cost = measured(family, processor, asked, images_kwargs={"size": size})
        assert shape.cost(*asked, **limits) == cost, asked


def test_limits_of_pixels_hold_for_the_picture_that_another_family_s_processor_gets(made):
    shape, processor = made["pixtral"]
    for size in sizes(20, 700, seed=2):
        fitted = fit_pixels(size, 900, 5000)
        assert fitted[0] * fitted[1] <= 5000
        assert shape.cost(*size, min_pixels=900, max_pixels=5000) == measured(
            "pixtral", processor, fitted
        )


def test_qwen_at_its_published_size():
    for name, least, most in (
        ("Qwen2.5-VL-7B-Instruct", 56 * 56, 28 * 28 * 16384),
        ("Qwen3-VL-8B-Instruct", 256 * 256, 4096 * 4096),
    ):
        shape = published(name)
        unit = shape.patch_size * shape.merge_size
        for width, height in sizes(500, 6000):
            cost = shape.cost(width, height)
            expected = smart_resize(height, width, unit, least, most)
            assert (cost.height, cost.width) == expected
            assert cost.tokens == cost.patches // 4 == cost.width * cost.height // unit**2


def test_pixtral_and_mistral_at_their_published_sizes():
    for name, longest, unit in (
        ("pixtral-12b", 1024, 16),
        ("Mistral-Small-3.1-24B-Instruct-2503", 1540, 28),
    ):
        shape = published(name)
        for width, height in sizes(200, 6000):
            picture = np.broadcast_to(np.uint8(0), (height, width, 3))
            expected = get_resize_output_image_size(picture, longest, unit, "channels_last")
            if not all(expected):
                with pytest.raises(ValueError, match="nothing"):
                    shape.cost(width, height)
                continue
            cost = shape.cost(width, height)
            assert (cost.height, cost.width) == expected
            assert cost.tokens == cost.width * cost.height // unit**2


def test_llama_at_its_published_size():
    shape = published("Llama-3.2-11B-Vision-Instruct")
    for width, height in sizes(500, 6000):
        cost = shape.cost(width, height)
        expected = get_optimal_tiled_canvas(height, width, 4, 560)
        assert (cost.height, cost.width) == tuple(int(side) for side in expected)
        assert (cost.tokens, cost.patches) == (1, 4 * 1601)


def test_idefics_at_its_published_sizes():
    for name, longest, tile in (
        ("SmolVLM-256M-Instruct", 2048, 512),
        ("SmolVLM2-2.2B-Instruct", 1536, 384),
        ("Idefics3-8B-Llama3", 1456, 364),
    ):
        shape = published(name)
        processor = Idefics3ImageProcessorPil(
            size={"longest_edge": longest}, max_image_size={"longest_edge": tile}
        )
        for width, height in sizes(15, 2500):
            if min(width, height) < 4:  # which could be taken for its channels
                continue
            picture = np.zeros((height, width, 3), dtype=np.uint8)
            made = processor([[picture]], return_row_col_info=True, do_normalize=False)
            rows, columns = made["rows"][0][0], made["cols"][0][0]
            cost = shape.cost(width, height)
            assert cost.tiles == (rows * columns + 1 if rows else 1) == len(made["pixel_values"][0])
            assert (cost.height, cost.width) == (max(1, rows) * tile, max(1, columns) * tile)
    assert published("SmolVLM-256M-Instruct").cost(2048, 2048).tokens == 17 * 64
    assert published("SmolVLM2-2.2B-Instruct").cost(1536, 1536).tokens == 17 * 81
    assert published("Idefics3-8B-Llama3").cost(364, 364).tokens == 17 * 169


def test_pictures_of_one_size_cost_always_the_same():
    assert published("gemma-3-4b-it").cost(5, 5000) == ImageCost(896, 896, 4096, 256)
    assert published("llava-1.5-7b-hf").cost(5, 5000) == ImageCost(336, 336, 577, 576)
    # the published figure of LLaVA-NeXT for a picture that fills its largest square canvas
    assert published("llava-v1.6-mistral-7b-hf").cost(672, 672).tokens == 576 + 48 * 48 + 48


def test_a_line_is_no_picture_for_qwen():
    with pytest.raises(ValueError, match="200 times"):
        published("Qwen2-VL-2B-Instruct").cost(2001, 10)


@pytest.mark.parametrize("name", CONFIGS)
def test_counts_agree_with_the_model_that_transformers_builds(name):
    values = dict(CONFIGS[name])
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    model.tie_weights()
    where = towers(model)
    shape = ModelShape.from_config(CONFIGS[name])
    assert shape.vision is not None
    parameters = dict(model.named_parameters())
    seeing = {"vision", "projector"}
    tower = {n for n in parameters if where.of(n) in seeing or n == "model.image_newline"}
    assert shape.vision.parameters == sum(parameters[n].numel() for n in tower)
    assert shape.total_parameters() == sum(p.numel() for p in parameters.values())
    linear = {
        f"{n}.weight"
        for n, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and where.of(n) in seeing
    }
    assert shape.vision.linear_parameters() == sum(parameters[n].numel() for n in linear)
    # as transformers writes the config, with everything said
    assert ModelShape.from_config(config.to_dict()).total_parameters() == shape.total_parameters()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_catalogue_has_the_shape_of_the_published_config(name):
    entry = find(name)
    assert entry is not None
    shape = ModelShape.from_config(CONFIGS[name])
    assert entry.shape.vision == shape.vision
    assert entry.parameters == entry.shape.total_parameters() == shape.total_parameters()
    assert entry.modality == ["text", "image"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_odd_sizes_are_counted_too(family, tied):
    config = tiny_config(family, tiny_tokenizer(family), tie_word_embeddings=tied)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    model.tie_weights()
    shape = ModelShape.from_config(config.to_dict())
    assert shape.total_parameters() == sum(p.numel() for p in model.parameters())


def test_what_configs_leave_out_is_what_transformers_takes():
    kinds = {
        "gemma3": "siglip_vision_model",
        "mllama": "mllama_vision_model",
        "llava": "clip_vision_model",
    }
    for family, values in TOWER_DEFAULTS.items():
        if family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "mllama", "idefics3"):
            made = AutoConfig.for_model(family).vision_config
        else:
            made = AutoConfig.for_model(kinds.get(family, family))
        given = made.to_dict()
        for name, value in values.items():
            found = given.get(name, getattr(made, name, None))
            assert (list(found) if isinstance(found, tuple) else found) == value, (family, name)


def test_the_processor_s_own_settings_are_read(tmp_path: Path):
    folder = tiny_vision("qwen2_vl", tmp_path / "model")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["size"] = {"shortest_edge": 784, "longest_edge": 1568}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    shape = load_shape(ModelPart(name=str(folder))).vision
    assert shape is not None
    assert shape.cost(500, 500).tokens == 1


def test_models_without_eyes_and_of_unknown_families_have_no_vision_shape():
    assert VisionShape.from_config({"model_type": "llama"}) is None
    assert VisionShape.from_config({"model_type": "new", "vision_config": {"depth": 1}}) is None


def test_the_shape_of_eyes_needs_neither_torch_nor_pillow():
    code = (
        "import sys; import tunebook.models.vision, tunebook.models.vision_shape;"
        "assert not {'torch', 'transformers', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_pixels_are_fitted_into_a_budget_keeping_the_shape():
    assert fit_pixels((100, 50)) == (100, 50)
    width, height = fit_pixels((1000, 500), max_pixels=5000)
    assert width * height <= 5000
    assert width / height == pytest.approx(2, abs=0.05)
    width, height = fit_pixels((10, 5), min_pixels=5000)
    assert width * height >= 5000
    assert width / height == pytest.approx(2, abs=0.05)
    assert fit_pixels((10_000, 1), max_pixels=100)[1] == 1
