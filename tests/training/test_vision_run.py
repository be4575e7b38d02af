"""Runs whose rows hold pictures, from a recipe to an adapter."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from tiny_vision import tiny_vision

from tunebook.data import apply_fixes, check
from tunebook.errors import ImageInvalid, ImagesUnsupported
from tunebook.events import SampleEvent, WarningEvent
from tunebook.recipe import Recipe
from tunebook.training import Run, open_run

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder of a tiny Qwen2.5-VL."""
    return tiny_vision("qwen2_5_vl", tmp_path_factory.mktemp("models") / "qwen")


@pytest.fixture
def colours(tmp_path):
    """A data file in LLaVA's form, with pictures of one colour each beside it."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    (folder / "pictures").mkdir(parents=True)
    rows = []
    for number in range(24):
        name = list(COLOURS)[number % 3]
        noise = rng.integers(-20, 20, (40 + number, 50, 3)) + COLOURS[name]
        path = f"pictures/{number}.png"
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / path)
        talk = [
            {"from": "human", "value": "<image>\nWhich colour?"},
            {"from": "gpt", "value": name},
        ]
        rows.append({"id": str(number), "image": path, "conversations": talk})
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder / "rows.json"


def recipe(model, source, **values):
    dotted = {name.replace("__", "."): value for name, value in values.items()}
    return Recipe().with_values(
        {
            "model.name": str(model),
            "model.max_seq_length": 256,
            "data.source": str(source),
            "data.eval_fraction": 0.25,
            "quantization.bits": 16,
            "lora.r": 4,
            "lora.alpha": 8,
            "training.max_steps": 6,
            "training.learning_rate": 5e-3,
            "training.batch_size": 2,
            "training.gradient_accumulation_steps": 2,
            "training.save_steps": 3,
            "training.eval_steps": 6,
            "samples.sample_steps": 3,
            "samples.sample_rows": 2,
            "samples.sample_tokens": 4,
            "training.packing": True,  # which rows with pictures are not
            **dotted,
        }
    )


def test_a_run_learns_from_pictures_and_keeps_those_that_it_is_asked_about(tiny, colours, tmp_path):
    run = Run.create(recipe(tiny, colours), root=tmp_path / "runs").start().wait()
    assert run.state == "completed"
    steps = run.history()
    assert steps[-1].loss < steps[0].loss - 0.5
    warned = [event.code for event in run.log.read() if isinstance(event, WarningEvent)]
    assert "rows_not_packed" in warned
    samples = [event for event in run.log.read() if isinstance(event, SampleEvent)]
    assert {event.expected for event in samples} <= set(COLOURS)
    assert all(event.prompt == "Which colour?" for event in samples)
    for event in samples:
        with Image.open(run.path / event.images[0]) as shown:
            mean = np.asarray(shown).reshape(-1, 3).mean(0)
        assert np.abs(mean - COLOURS[event.expected]).max() < 30
    assert (run.folder.adapter / "preprocessor_config.json").is_file() or (
        run.folder.adapter / "processor_config.json"
    ).is_file()
    assert open_run(run.path).model.peft_config


def test_a_damaged_picture_is_named_or_left_out(tiny, colours, tmp_path):
    path = colours.parent / "pictures" / "5.png"
    path.write_bytes(path.read_bytes()[:-200])  # its head is good, so only training sees it
    everything = recipe(tiny, colours, data__eval_fraction=0.0, training__max_steps=12)
    with pytest.raises(ImageInvalid, match=r"Row 5 (?s:.*)damaged"):
        Run.create(everything, root=tmp_path / "runs").start().wait()
    skipping = everything.with_values({"data.on_bad_rows": "skip"})
    assert Run.create(skipping, root=tmp_path / "more").start().wait().state == "completed"

    path.unlink()
    with pytest.raises(ImageInvalid, match=r"Row 5 (?s:.*)there is no file"):
        Run.create(everything, root=tmp_path / "runs").start().wait()
    run = Run.create(skipping, root=tmp_path / "more").start().wait()
    assert run.state == "completed"


def test_a_model_that_reads_text_refuses_pictures_unless_told_to_ignore_them(colours, tmp_path):
    text = recipe("tunebook-tiny", colours, training__max_steps=1)
    with pytest.raises(ImagesUnsupported, match="image_columns"):
        Run.create(text, root=tmp_path / "runs").start().wait()
    told = text.with_values({"data.image_columns": []})
    assert Run.create(told, root=tmp_path / "runs").start().wait().state == "completed"


def test_a_check_names_what_is_wrong_with_pictures(tiny, colours):
    folder = colours.parent / "pictures"
    whole = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(whole[:-100])
    Image.new("CMYK", (50, 40)).save(folder / "4.png", "TIFF")
    (folder / "6.png").unlink()
    report = check(recipe(tiny, colours))
    found = {finding.code: finding for finding in report.findings}
    assert found["bad_image"].examples == [3, 6]
    assert "damaged or cut off" in found["bad_image"].title
    assert found["mended_image"].examples == [4]
    assert "CMYK" in found["mended_image"].title
    assert not report.ok
    assert report.statistics is not None
    assert report.statistics.images == 22
    assert report.statistics.largest_image == (50, 63)

    fixed = apply_fixes(recipe(tiny, colours), ["drop_invalid"])
    assert fixed.changed == {"drop_invalid": 2}
    assert len(fixed.table) == 22

    narrow = check(recipe(tiny, colours, model__max_seq_length=12))
    found = {finding.code: finding for finding in narrow.findings}
    assert "pixels) takes" in found["image_too_long"].title

    text = check(recipe("tunebook-tiny", colours))
    assert text.findings[0].code == "ImagesUnsupported"


def test_a_model_that_sees_learns_from_words_alone_too(tiny, tmp_path):
    rows = [{"question": "Which colour?", "answer": name} for name in COLOURS] * 4
    words = recipe(tiny, "unused", training__max_steps=2)
    run = Run.create(words, root=tmp_path / "runs", rows=rows).start().wait()
    assert run.state == "completed"
    warned = [event.code for event in run.log.read() if isinstance(event, WarningEvent)]
    assert {"no_pictures", "rows_not_packed"} <= set(warned)
    trained = [name for name, p in run.model.named_parameters() if "lora_" in name]
    assert trained
    assert not any("visual" in name for name in trained)
