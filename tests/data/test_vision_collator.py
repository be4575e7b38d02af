"""Batches of rows with pictures in the forms that people have them, lazily, in workers, in streams."""

from __future__ import annotations

import datasets
import pytest
import torch
from PIL import Image
from tiny_vision import tiny_vision

from tunebook.data.formats import INSTRUCTION, detect_format
from tunebook.data.loading import load_rows
from tunebook.data.vision_collator import VisionDataCollator, VisionRows
from tunebook.errors import ImageInvalid, ImageTooLong, RecipeInvalid
from tunebook.models.vision import load_processor
from tunebook.recipe import DataPart, ModelPart
from tunebook.trainer import UnslothVisionDataCollator
from tunebook.training.parts import split_batch


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tiny_vision("qwen2_5_vl", tmp_path_factory.mktemp("vision") / "qwen")
    return load_processor(ModelPart(name=str(folder)))


def picture(color=(200, 30, 30), size=(56, 56)):
    return Image.new("RGB", size, color)


def user(*parts):
    return {"role": "user", "content": list(parts)}


TEXT, PLACE = {"type": "text", "text": "What is it?"}, {"type": "image"}
ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "a field"}]}


def learnt(batch, processor, row=0):
    labels = batch["labels"][row]
    return processor.tokenizer.decode(labels[labels != -100])


def rows_in_every_form(path):
    """The same row, written in the ways that data sets have it."""
    inside = {"type": "image", "image": picture()}
    asked = {"role": "user", "content": "What is it?"}
    told = {"role": "assistant", "content": "a field"}
    return {
        "parts with the picture": {"messages": [user(inside, TEXT), ANSWER]},
        "parts and a column": {"messages": [user(PLACE, TEXT), ANSWER], "images": [picture()]},
        "text and a column": {"messages": [asked, told], "image": picture()},
        "LLaVA": {
            "image": path,
            "conversations": [
                {"from": "human", "value": "<image>What is it?"},
                {"from": "gpt", "value": "a field"},
            ],
        },
        "question and answer": {"image": picture(), "question": "What is it?", "answer": "a field"},
        "prompt and completion": {
            "images": [picture()],
            "prompt": [user(PLACE, TEXT)],
            "completion": [told],
        },
        "OpenAI's": {
            "messages": [
                user({"type": "image_url", "image_url": {"url": path}}, TEXT),
                told,
            ]
        },
        "stored": {"image": {"bytes": None, "path": path}, "question": "What is it?", "answer": "a field"},
    }  # fmt: skip


def test_one_row_in_every_form_makes_one_batch(processor, tmp_path):
    path = str(tmp_path / "x.png")
    picture().save(path)
    forms = rows_in_every_form(path)
    first, *others = (VisionDataCollator(None, processor)([row]) for row in forms.values())
    assert learnt(first, processor) == "a field<|im_end|>"
    for name, batch in zip(list(forms)[1:], others, strict=True):
        assert batch.keys() == first.keys()
        for key, value in batch.items():
            assert torch.equal(value, first[key]), (name, key)


def test_a_picture_and_a_text_are_asked_about_with_an_instruction(processor):
    rows = [{"image": picture(), "text": r"\frac{1}{2}"}]
    found = detect_format(rows)
    assert (found.format, found.images) == ("prompt_completion", ["image"])
    assert INSTRUCTION in found.reason
    batch = VisionDataCollator(None, processor)(rows)
    assert learnt(batch, processor) == r"\frac{1}{2}<|im_end|>"
    told = detect_format(rows, merged_prompt="Write the formula.")
    assert told.columns == {"completion": "text"}
    mapped = detect_format(rows, columns={"completion": "text"})
    assert mapped.merged_prompt == INSTRUCTION
    assert INSTRUCTION in mapped.reason
    assert detect_format(rows, image_columns=[]).format == "text"
    with pytest.raises(RecipeInvalid, match="image_columns"):
        detect_format(rows, image_columns=["photo"])


def test_pictures_and_places_that_do_not_match_are_named(processor):
    collate = VisionDataCollator(None, processor)
    more = {"messages": [user(PLACE, TEXT), ANSWER], "images": [picture(), picture()]}
    fewer = {"messages": [user(PLACE, PLACE, TEXT), ANSWER], "images": [picture()]}
    none = {"messages": [user(PLACE, TEXT), ANSWER], "images": []}
    for row, words in ((more, "more pictures"), (fewer, "fewer pictures"), (none, "fewer")):
        with pytest.raises(ImageInvalid, match=words):
            collate([row])


def test_bad_rows_are_left_out_of_a_batch_where_they_may_be(processor):
    good = {"messages": [user(PLACE, TEXT), ANSWER], "images": [picture()]}
    bad = {"messages": [user(PLACE, TEXT), ANSWER], "images": [b"no picture"]}
    with pytest.raises(ImageInvalid, match="Row 1 of the batch"):
        VisionDataCollator(None, processor)([good, bad])
    collate = VisionDataCollator(None, processor, on_bad_rows="skip")
    with pytest.raises(ImageInvalid):
        collate([bad])  # nothing is known yet that could stand for it
    assert collate([bad, good, bad])["input_ids"].shape[0] == 1
    batch = collate([bad])
    assert set(batch["labels"].flatten().tolist()) == {-100}


def test_the_options_that_tutorials_know(processor):
    assert UnslothVisionDataCollator is VisionDataCollator
    row = {
        "messages": [
            user({"type": "image", "image": picture(size=(400, 200))}, TEXT),
            ANSWER,
            user({"type": "text", "text": "Sure?"}),
            {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
        ]
    }

    class Model:
        max_seq_length = 40

    assert VisionDataCollator(Model(), processor, resize=56)([row])["input_ids"].shape[1] == 40
    collate = VisionDataCollator(None, processor, last_response_only=True)
    assert learnt(collate([row]), processor) == "yes<|im_end|>"
    everything = VisionDataCollator(None, processor, train_on_responses_only=False)([row])
    said = learnt(everything, processor)
    assert "What is it?" in said
    assert "<|image_pad|>" not in said
    plain = VisionDataCollator(None, processor)([row])
    small = VisionDataCollator(None, processor, resize=56)([row])
    assert small["input_ids"].shape[1] < plain["input_ids"].shape[1]
    assert (
        VisionDataCollator(None, processor, pad_to_multiple_of=64)([row])["labels"].shape[1] % 64
        == 0
    )
    assert (VisionDataCollator(None, processor, ignore_index=-1)([row])["labels"] == -1).any()
    masked = VisionDataCollator(None, processor, mask_out_tokens=["<|im_end|>"])([row])
    assert "<|im_end|>" not in learnt(masked, processor)
    made = VisionDataCollator(None, processor, formatting_func=lambda given: given["talk"])
    assert torch.equal(made([{"talk": row["messages"]}])["labels"], plain["labels"])
    with pytest.raises(ImageTooLong):
        VisionDataCollator(None, processor, max_seq_length=10)([row])


def test_tables_hold_pictures_undecoded_and_workers_open_them(processor, tmp_path):
    paths = []
    for number in range(6):
        picture(size=(40 + 10 * number, 40)).save(tmp_path / f"{number}.png")
        paths.append(str(tmp_path / f"{number}.png"))
    table = datasets.Dataset.from_dict({"image": paths, "text": list("abcdef")})
    table = table.cast_column("image", datasets.Image())
    loaded = load_rows(DataPart(), rows=table.select([5, 0, 1]))
    assert loaded[0]["image"] == {"bytes": None, "path": paths[5]}
    rows = VisionRows(loaded, detect_format(loaded), [0, 2])
    assert len(rows) == 2
    assert rows[1]["place"].startswith("Row 2 ")

    collate = VisionDataCollator(None, processor)
    here = [collate([row]) for row in rows]
    loader = torch.utils.data.DataLoader(rows, batch_size=1, num_workers=2, collate_fn=collate)
    for mine, batch in zip(here, loader, strict=True):
        assert mine.keys() == batch.keys()
        assert all(torch.equal(mine[key], batch[key]) for key in mine)


def test_lists_and_streams_with_pillow_images_become_tables(processor):
    rows = [{"image": picture((i, 0, 0)), "question": "q", "answer": str(i)} for i in range(4)]
    talks = [
        {"messages": [user({"type": "image", "image": picture()}, TEXT), ANSWER]},
        {"messages": [{"role": "user", "content": "no picture"}, {"role": "assistant", "content": "a"}]},
    ]  # fmt: skip
    stream = datasets.Dataset.from_list(rows).to_iterable_dataset()
    for given in (rows, stream, talks, talks[::-1]):
        loaded = load_rows(DataPart(max_rows=3), rows=given)
        seen = VisionRows(loaded, detect_format(loaded), range(len(loaded)))
        batch = VisionDataCollator(None, processor)(list(seen))
        assert batch["input_ids"].shape[0] == len(loaded)
        assert "pixel_values" in batch


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "mllama", "idefics3", "llava_next"])
def test_a_batch_that_is_too_large_is_cut_with_its_pictures(tmp_path, family):
    processor = load_processor(ModelPart(name=str(tiny_vision(family, tmp_path / family))))
    counts = [2, 1, 1, 1] if family == "mllama" else [2, 0, 1, 1]  # not with older transformers
    rows = [
        {
            "messages": [user(*[PLACE] * count, TEXT), ANSWER],
            "images": [picture(size=(50 + 20 * i + 40 * row, 60)) for i in range(count)],
        }
        for row, count in enumerate(counts)
    ]
    collate = VisionDataCollator(None, processor, image_counts=True)
    whole = collate(rows)
    assert whole["image_counts"] == tuple(counts)
    parts = list(split_batch(whole, 2))
    for part, given in zip(parts, (rows[:2], rows[2:]), strict=True):
        alone = collate(given)
        assert part.keys() == alone.keys()
        length = alone["input_ids"].shape[1]
        assert torch.equal(part["input_ids"][:, :length], alone["input_ids"])
        assert part["image_counts"] == alone["image_counts"]
        for name in ("pixel_values", "image_grid_thw", "image_sizes", "aspect_ratio_ids"):
            if name in alone and family in ("qwen2_5_vl", "gemma3"):
                assert torch.equal(part[name], alone[name]), name
            elif name in alone:  # padded to what the batch has most of
                assert part[name].shape[0] == alone[name].shape[0], name
    last = list(split_batch(whole, 4))[1]
    if family in ("qwen2_5_vl", "gemma3", "llava_next"):
        assert "pixel_values" not in last


def test_a_small_batch_of_a_large_picture(processor):
    row = {"talk": [user({"type": "image", "image": picture(size=(3000, 2000))}, TEXT), ANSWER]}
    collate = VisionDataCollator(None, processor, formatting_func=lambda given: given["talk"])
    small = collate.small(row)
    patches = small["image_grid_thw"].prod().item()
    assert patches * 14 * 14 <= 2**17
    assert learnt(small, processor) == "a field<|im_end|>"


def test_a_worker_tells_which_row_was_bad(processor):
    rows = datasets.Dataset.from_dict(
        {"image": ["nowhere.png"], "question": ["q"], "answer": ["a"]}
    )
    seen = VisionRows(rows, detect_format(rows), [0])
    loader = torch.utils.data.DataLoader(
        seen, num_workers=1, collate_fn=VisionDataCollator(None, processor)
    )
    with pytest.raises(ImageInvalid) as caught:
        next(iter(loader))
    assert caught.value.what == "Row 0 (counted from 0): the picture cannot be used."
    assert caught.value.why.startswith("there is no file 'nowhere.png'")
    assert caught.value.do.startswith("check the path")
