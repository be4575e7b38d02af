"""One row through all stages, and under two templates, against what training makes."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from tunebook.data import (
    compare_templates,
    encode_conversation,
    follow_row,
    get_chat_template,
    prepare_data,
)
from tunebook.data.journey import journey_of
from tunebook.data.marks import RowMarks
from tunebook.data.packing import pack_rows
from tunebook.data.placing import RowPlaces
from tunebook.data.tokens import token_view
from tunebook.errors import RowInvalid, TemplateInvalid
from tunebook.recipe import Recipe


def rows_of(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [
        {"prompt": f"Question {i}?", "completion": "word " * draw.randint(1, 40) + "مرحبا"}
        for i in range(count)
    ]


def test_a_row_is_followed_from_its_columns_to_its_tokens(tokenizer, chat) -> None:
    model = tokenizer("qwen2.5")
    rows = rows_of(5, seed=1)
    journey = follow_row(Recipe.of(max_seq_length=16), model, 3, rows=rows)
    whole = encode_conversation(model, chat(None, rows[3]["prompt"], rows[3]["completion"]))
    assert journey.raw == rows[3]
    assert [m["role"] for m in journey.messages] == ["user", "assistant"]
    assert "".join(piece.text for piece in journey.text) == whole.text
    learnt = [piece.text for piece in journey.text if piece.trained]
    assert learnt == [rows[3]["completion"] + "<|im_end|>"]
    assert journey.tokens.n_tokens == 16
    assert journey.tokens.n_cut == whole.length - 16
    assert journey.failed is None


def test_a_row_carries_its_tools_and_whether_they_are_written(tokenizer) -> None:
    tool = {"name": "clock", "description": "The time.", "parameters": {}}
    rows = [*rows_of(1, seed=4), {**rows_of(1, seed=5)[0], "tools": [tool]}]
    model = tokenizer("qwen2.5")
    plain, offering = (follow_row(Recipe.of(), model, number, rows=rows) for number in (0, 1))
    assert (plain.tools, plain.tools_shown) == (None, None)
    assert offering.tools == [{"type": "function", "function": tool}]
    assert offering.tools_shown is True
    assert "The time." in "".join(piece.text for piece in offering.text)
    blind = follow_row(Recipe.of(chat_template="chatml"), model, 1, rows=rows)
    assert blind.tools_shown is False
    assert "The time." not in "".join(piece.text for piece in blind.text)


def test_a_packed_row_lies_where_training_puts_it(tokenizer) -> None:
    model = tokenizer("qwen2.5")
    rows = rows_of(40, seed=2)
    rows[7] = {"prompt": "no answer", "completion": ""}
    rows[11] = {"prompt": "long " * 90, "completion": "cut off"}
    recipe = Recipe.of(max_seq_length=64, packing=True, eval_fraction=0.2)
    data = prepare_data(recipe, model, rows=rows)
    packed = pack_rows(data.train, 64)
    shown = [follow_row(recipe, model, number, rows=rows) for number in (0, 5, 11, 20, 39)]
    assert shown[2].packed.state == "left_out"
    assert "nothing in it is learnt" in shown[2].packed.why
    states = {journey.packed.state for journey in shown}
    assert "packed" in states
    for journey in shown:
        place = journey.packed
        if place.state != "packed":
            continue
        assert place.sequences == len(packed)
        sequence = packed[place.sequence]
        ids = [cell.id for cell in journey.tokens.tokens]
        assert sequence["input_ids"][place.start : place.start + place.length] == ids
        assert [item.length for item in place.rows] == sequence["seq_lengths"]
        assert place.used == len(sequence["input_ids"]) <= place.capacity == 64


def marks_of(lengths: list[int]) -> RowMarks:
    marks = RowMarks()
    for number, length in enumerate(lengths):
        marks.measured(number, length)
    return marks


@pytest.mark.parametrize("batch", [1, 2, 3, 6])
def test_the_mean_padding_is_that_of_all_batches_there_can_be(batch: int) -> None:
    draw = random.Random(batch)
    lengths = [draw.randint(1, 9) for _ in range(7)]
    places = RowPlaces(Recipe.of(batch_size=batch), marks_of(lengths), 7)
    for row in range(7):
        others = lengths[:row] + lengths[row + 1 :]
        drawn = list(itertools.combinations(others, batch - 1))
        mean = sum(max(lengths[row], *some, 0) for some in drawn) / len(drawn)
        found = places.of(row)
        assert found.state == "batched"
        assert found.padded == pytest.approx(mean, abs=0.051)
        assert found.capacity == max(lengths)


def test_rows_held_back_and_rows_labelled_bad_are_said_to_be(tokenizer) -> None:
    rows = [{"prompt": f"q{i}", "completion": "a b c", "label": i % 2 == 0} for i in range(8)]
    recipe = Recipe.of(format="unpaired_preference")
    states = [follow_row(recipe, tokenizer("qwen2.5"), i, rows=rows).packed for i in (0, 1)]
    assert [state.state for state in states] == ["batched", "left_out"]
    assert "labelled bad" in states[1].why
    held = RowPlaces(Recipe.of(eval_fraction=0.5), marks_of([3] * 10), 10)
    assert sum(held.of(row).state == "evaluation" for row in range(10)) == 5


def test_a_stage_that_fails_ends_the_journey_and_says_why(tokenizer, chat) -> None:
    model = tokenizer("qwen2.5")
    rows = [{"messages": chat(None, "a", "b")}, {"messages": [{"role": "user"}]}]
    broken = follow_row(Recipe(), model, 1, rows=rows)
    assert (broken.failed, broken.tokens, broken.packed.state) == ("messages", None, "left_out")
    assert "no `content`" in broken.error["why"]
    refusing = "{{ raise_exception('no') }}"
    refused = follow_row(Recipe.of(chat_template=refusing), model, 0, rows=rows[:1])
    assert (refused.failed, len(refused.messages)) == ("text", 2)
    with pytest.raises(RowInvalid, match="2"):
        follow_row(Recipe(), model, 2, rows=rows)


def test_values_of_tokens_are_carried_and_only_finite_ones(tokenizer, chat) -> None:
    model = tokenizer("qwen2.5")
    encoded = encode_conversation(model, chat(None, "a", "b"))
    view = token_view(model, encoded, values=[0.5, float("nan"), None, float("inf"), 2])
    assert [cell.value for cell in view.tokens[:6]] == [0.5, None, None, None, 2.0, None]
    assert all(cell.value is None for cell in token_view(model, encoded).tokens)


def test_two_templates_differ_where_their_tokens_do(tokenizer, chat) -> None:
    model = tokenizer("qwen2.5")
    rows = [{"messages": chat("Be brief.", "Why? 😀", "So.", "And שלום?", "Yes.")}]
    found = compare_templates(Recipe(), model, 0, "alpaca", rows=rows)
    sides = [found.mine, found.other]
    kept = [
        [cell.id for cell, mark in zip(s.view.tokens, s.marks, strict=True) if mark != "only"]
        for s in sides
    ]
    assert kept[0] == kept[1]
    assert {"only", "same"} <= set(found.mine.marks)
    assert not found.same
    other = encode_conversation(get_chat_template(model, "alpaca"), rows[0]["messages"])
    assert [cell.id for cell in found.other.view.tokens] == other.input_ids
    assert found.other.view.n_trained == other.n_trained
    assert any(
        cell.text == "###" and mark == "only"
        for cell, mark in zip(found.other.view.tokens, found.other.marks, strict=True)
    )


def test_the_same_template_shows_no_difference_and_a_bad_one_an_error(tokenizer, chat) -> None:
    model = tokenizer("qwen2.5")
    rows = [{"messages": chat(None, "a", "b")}]
    recipe = Recipe.of(chat_template="chatml")
    assert compare_templates(recipe, model, 0, "chatml", rows=rows).same
    # The model's own template writes a system message of its own.
    assert not compare_templates(recipe, model, 0, "", rows=rows).same
    refused = compare_templates(recipe, model, 0, "{{ raise_exception('not so') }}", rows=rows)
    assert "not so" in refused.other.error["why"]
    assert refused.mine.view is not None
    with pytest.raises(TemplateInvalid, match="no chat template named"):
        compare_templates(recipe, model, 0, "nonsense-name", rows=rows)
    with pytest.raises(RowInvalid, match="no row 5"):
        compare_templates(recipe, model, 5, "alpaca", rows=rows)


def test_a_token_that_only_one_template_learns_is_marked_so(tokenizer, chat) -> None:
    model = tokenizer("qwen2.5")
    unmarked = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    marked = (
        "{% for m in messages %}{{ m['role'] }}: {% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] }}\n{% endgeneration %}{% else %}"
        "{{ m['content'] }}\n{% endif %}{% endfor %}"
    )
    rows = [{"messages": chat(None, "Hello there", "General answer")}]
    found = compare_templates(Recipe.of(chat_template=unmarked), model, 0, marked, rows=rows)
    assert set(found.mine.marks) == {"same", "mask"}
    assert found.mine.marks == found.other.marks


def test_without_places_the_last_stage_is_unknown(tokenizer, chat) -> None:
    from tunebook.data.formats import detect_format
    from tunebook.data.masking import Encoder

    rows = [{"messages": chat(None, "a", "b")}]
    encoder = Encoder(tokenizer("qwen2.5"), every_turn=True)
    assert journey_of(rows[0], 0, detect_format(rows), encoder).packed.state == "unknown"
