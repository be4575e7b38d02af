"""Rows with pictures as the models' own processors read them: counts, masks, cuts and bad rows."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from PIL import Image
from tiny_vision import FAMILIES, tiny_vision

from tunebook.data.masking import MASKED
from tunebook.data.vision import VisionEncoder, encode_vision_row, vision_row
from tunebook.errors import ImageInvalid, ImageTooLong, TemplateInvalid
from tunebook.models.vision import load_processor
from tunebook.recipe import ModelPart

SIZES = [(64, 64), (100, 60), (300, 40), (40, 200), (57, 33)]


@pytest.fixture(scope="session")
def processor_of(tmp_path_factory):
    """The processor of a family, made once."""
    made = {}

    def get(family):
        if family not in made:
            folder = tiny_vision(family, tmp_path_factory.mktemp("vision") / family)
            made[family] = load_processor(ModelPart(name=str(folder)))
        return made[family]

    return get


def picture(size=(64, 64), color=(200, 30, 30)):
    return Image.new("RGB", size, color)


def talk(*pairs):
    """Questions, each with as many pictures as it says, and their answers."""
    messages = []
    for images, question, answer in pairs:
        parts = [{"type": "image"}] * images + [{"type": "text", "text": question}]
        messages.append({"role": "user", "content": parts})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return messages


def learnt_text(encoded, processor):
    """What the labels say, stretch by stretch."""
    return [
        processor.tokenizer.decode(encoded.input_ids[first:last]) for first, last in encoded.learnt
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_only_answers_are_learnt_and_ids_are_the_processors_own(processor_of, family):
    processor = processor_of(family)
    messages = talk((1, "What is it?", "A red field."), (2, "And these?", "Two more."))
    images = [picture(size) for size in SIZES[:3]]
    encoded = encode_vision_row(messages, images, processor)

    text = processor.apply_chat_template(messages, tokenize=False)
    own = processor(text=[text], images=[images], add_special_tokens=False, return_tensors="pt")
    assert encoded.input_ids == own["input_ids"][0].tolist()
    for name, value in own.items():
        if name not in ("input_ids", "attention_mask"):
            assert torch.equal(encoded.pixels[name], value), name

    said = learnt_text(encoded, processor)
    assert [text.strip().split("<")[0].strip() for text in said] == ["A red field.", "Two more."]
    assert len(encoded.images) == 3
    assert [(span.width, span.height) for span in encoded.images] == SIZES[:3]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_image_token_lies_in_a_span_of_a_picture(processor_of, family):
    processor = processor_of(family)
    token = getattr(processor.tokenizer, "image_token", None) or processor.image_token
    token_id = processor.tokenizer.convert_tokens_to_ids(token)
    for size in SIZES:
        encoded = encode_vision_row(talk((2, "q", "a")), [picture(size)] * 2, processor)
        inside = {i for span in encoded.images for i in range(span.start, span.end)}
        places = {i for i, found in enumerate(encoded.input_ids) if found == token_id}
        assert places
        assert places <= inside
        assert encoded.images[0].end <= encoded.images[1].start


@pytest.mark.parametrize("family", FAMILIES)
def test_with_all_learnt_no_token_of_a_picture_is(processor_of, family):
    processor = processor_of(family)
    encoded = encode_vision_row(talk((1, "q", "a")), [picture()], processor, train_on="all")
    span = encoded.images[0]
    labels = encoded.labels
    assert set(labels[span.start : span.end]) == {MASKED}
    outside = labels[: span.start] + labels[span.end :]
    assert outside == encoded.input_ids[: span.start] + encoded.input_ids[span.end :]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_uneven_rows_is_its_rows_side_by_side(processor_of, family):
    encoder = VisionEncoder(processor_of(family))
    rows = [
        vision_row(
            talk((2, "Both?", "Yes, both of them.")), [picture(SIZES[1]), picture(SIZES[2])]
        ),
        vision_row(talk((0, "No picture here.", "None.")), []),
        vision_row(talk((1, "One?", "One.")), [picture(SIZES[3])]),
    ]
    try:
        encoded, batch = encoder.batch(rows, pad_to_multiple_of=8)
    except ImageInvalid as error:
        if family != "mllama" or "batch_size" not in error.do:
            raise
        pytest.skip("this release of transformers mixes no rows with and without pictures")
    assert batch["input_ids"].shape[1] % 8 == 0
    for number, row in enumerate(rows):
        (alone,), _ = encoder.batch([row])
        length = len(alone.input_ids)
        assert batch["input_ids"][number, :length].tolist() == alone.input_ids
        assert batch["labels"][number, :length].tolist() == alone.labels
        assert set(batch["labels"][number, length:].tolist()) <= {MASKED}
        assert encoded[number].images == alone.images


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_goes_around_a_picture(processor_of, family):
    processor = processor_of(family)
    messages = talk((1, "First?", "The first."), (1, "Second?", "The second one, at length."))
    images = [picture(), picture()]
    whole = encode_vision_row(messages, images, processor)
    first, second = whole.images

    in_the_last_answer = encode_vision_row(
        messages, images, processor, max_length=len(whole.input_ids) - 3
    )
    assert in_the_last_answer.truncated
    assert in_the_last_answer.images == whole.images
    assert in_the_last_answer.input_ids == whole.input_ids[:-3]

    if second.end - second.start > 1:
        in_the_second = encode_vision_row(messages, images, processor, max_length=second.end - 1)
        assert in_the_second.truncated
        assert in_the_second.length == len(whole.input_ids)
        assert in_the_second.images == [first]
        assert "The first." in processor.tokenizer.decode(in_the_second.input_ids)
        assert "Second?" not in processor.tokenizer.decode(in_the_second.input_ids)

    with pytest.raises(ImageTooLong, match=r"Row 5(?s:.*)max_pixels"):
        encode_vision_row(messages, images, processor, max_length=first.end - 1, place="Row 5")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pixel_budget_costs_fewer_tokens_or_none_more(processor_of, family):
    processor = processor_of(family)
    free = encode_vision_row(talk((1, "q", "a")), [picture((300, 300))], processor)
    small = encode_vision_row(
        talk((1, "q", "a")), [picture((300, 300))], processor, max_pixels=70 * 70
    )
    assert len(small.input_ids) <= len(free.input_ids)
    if family.startswith("qwen"):
        merged = 32 if family == "qwen3_vl" else 28
        span = small.images[0]
        assert span.grid is not None
        tokens = span.grid[0] * span.grid[1] // 4
        assert tokens * merged**2 <= 70 * 70
        assert len(free.input_ids) - len(small.input_ids) > 20


ODD = [(4, 4), (4, 500), (3000, 12), (1, 1), (1500, 1100)]


@pytest.mark.parametrize("family", FAMILIES)
def test_odd_sizes_are_read_or_named(processor_of, family):
    processor = processor_of(family)
    refused = []
    for size in ODD:
        with contextlib.suppress(ImageInvalid):
            encoded = encode_vision_row(talk((1, "q", "a")), [picture(size)], processor)
            assert encoded.images[0].end > encoded.images[0].start
            continue
        refused.append(size)
    assert set(refused) <= {(3000, 12), (4, 500)}  # a side of no patch, or 200 times the other
    for size in refused:
        with pytest.raises(ImageInvalid, match=r"Row 2: the model's processor refuses it"):
            encode_vision_row(talk((1, "q", "a")), [picture(size)], processor, place="Row 2")


def test_pictures_and_places_that_do_not_match_are_named(processor_of):
    processor = processor_of("gemma3")
    for images in (1, 3):
        with pytest.raises(ImageInvalid, match=r"Row 8: there are (more|fewer) pictures"):
            encode_vision_row(talk((2, "q", "a")), [picture()] * images, processor, place="Row 8")
    literal = talk((1, "what does <start_of_image> mean?", "a"))
    with pytest.raises(ImageInvalid, match="image tokens do not match"):
        encode_vision_row(literal, [picture()], processor)


def test_pictures_may_stand_inside_the_parts(processor_of, tmp_path):
    processor = processor_of("gemma3")
    picture().save(tmp_path / "x.png")
    inside = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Which is "},
                {"type": "image", "image": picture()},
                {"type": "text", "text": " and which "},
                {"type": "image", "path": str(tmp_path / "x.png")},
            ],
        },
        {"role": "assistant", "content": "Both."},
    ]
    encoded = encode_vision_row(inside, [], processor)
    assert len(encoded.images) == 2
    between = encoded.input_ids[encoded.images[0].end : encoded.images[1].start]
    assert processor.tokenizer.decode(between).strip() == "and which"


REAL = {  # what is learnt of two answers, "A field." and "A lake."
    "Apriel-1.6-15b-Thinker-fixed": ("pixtral", ["A field.\n<|end|>", "A lake."]),
    "unsloth-Apriel-1.5": ("pixtral", ["A field.\n<|end|>\n</s>", "A lake.\n<|end|>\n</s>"]),
    "Mistral-Small-3.2-24B-Instruct-2506": ("pixtral", ["A field.</s>", "A lake.</s>"]),
    "unsloth-mistral-Devstral-Small-2507": ("pixtral", ["A field.</s>", "A lake.</s>"]),
    "mistralai-Ministral-3-14B-Reasoning-2512": ("mistral3", ["A field.</s>", "A lake.</s>"]),
    "Qwen3.5-4B": ("qwen3_vl", ["A field.<|im_end|>", "\n</think>\n\nA lake.<|im_end|>"]),
    "Reka-Edge": ("llava_next", [" A field.\n\n<sep>", " A lake.\n\n<sep>"]),
    "LFM2.5-8B-A1B": ("llava_next", ["A field.<|im_end|>\n", "A lake.<|im_end|>\n"]),
}
TWO = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
    {"role": "assistant", "content": "A field."},
    {"role": "user", "content": [{"type": "text", "text": "And?"}, {"type": "image"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A lake."}]},
]


def with_template(processor, template):
    processor = copy.copy(processor)
    processor.chat_template = template
    return processor


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("name", REAL)
def test_real_templates_mark_the_same_answers(processor_of, shared_data, name, system):
    family, answers = REAL[name]
    template = (shared_data / "chat_templates" / f"{name}.jinja").read_text()
    told = [{"role": "system", "content": "Be short."}] * system
    processor = with_template(processor_of(family), template)
    encoded = encode_vision_row([*told, *TWO], [picture(), picture()], processor)
    assert learnt_text(encoded, processor) == answers
    assert len(encoded.images) == 2


LISTS_ONLY = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ part['text'] }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ANSWERS_AS_TEXT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'user' and message['content'] is not string %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% else %}{{ message['content'] + '' }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS_ONLY = "{% for message in messages %}{{ message['role'] + message['content'] }}{% endfor %}"


@pytest.mark.parametrize("template", [LISTS_ONLY, ANSWERS_AS_TEXT])
def test_templates_get_turns_in_the_form_that_they_take(processor_of, template):
    processor = with_template(processor_of("qwen2_5_vl"), template)
    encoded = encode_vision_row(TWO, [picture(), picture()], processor)
    assert learnt_text(encoded, processor) == ["A field.<|im_end|>", "A lake.<|im_end|>"]


def test_a_template_without_pictures_is_named(processor_of):
    processor = with_template(processor_of("qwen2_5_vl"), WORDS_ONLY)
    with pytest.raises(TemplateInvalid, match="with pictures"):
        encode_vision_row(TWO, [picture(), picture()], processor)
