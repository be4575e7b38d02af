"""Rows that offer tools: read in every dialect, rendered as the models' own templates do, not learnt."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tunebook.data import check, detect_format, encode_conversation, prepare_data, preview_rows
from tunebook.data.conversations import Conversation, to_messages
from tunebook.data.loading import load_rows
from tunebook.data.masking import MASKED, Encoder
from tunebook.data.rendering import Renderer
from tunebook.data.templates import find_template, get_chat_template
from tunebook.errors import RowInvalid
from tunebook.recipe import DataPart, Recipe

REAL_FILES = {
    "llama-3.1": "meta-llama-Llama-3.1-8B-Instruct",
    "llama-3.2": "meta-llama-Llama-3.2-3B-Instruct",
    "qwen-2.5": "Qwen-Qwen2.5-7B-Instruct",
    "qwen-3": "Qwen-Qwen3-0.6B",
    "gemma-4": "google-gemma-4-31B-it",
    "gpt-oss": "openai-gpt-oss-120b",
    "lfm-2": "LFM2-8B-A1B",
    "lfm-2.5": "LFM2.5-Instruct",
}
BARE = {
    "name": "weather",
    "description": "The weather of a <city>.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "default": None}, "a": {"type": "integer"}},
        "required": ["city"],
    },
}
WRAPPED = {"type": "function", "function": BARE}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bonn"}}}
TALK = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny"},
    {"role": "assistant", "content": "It is sunny."},
]


def schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    kinds = ["string", "number", "integer", "boolean", "null", "array", "object", "union", "oneOf"]
    kind = rng.choice(kinds if depth < 3 else kinds[:5])
    made: dict[str, Any] = {} if rng.random() < 0.5 else {"description": rng.choice(['"é"', "<d>"])}
    inner = [schema(rng, depth + 1) for _ in range(rng.randint(0, 3) if depth < 3 else 0)]
    if kind == "union":
        made["type"] = ["string", "null"][: rng.randint(1, 2)]
    elif kind == "oneOf":
        made["oneOf"] = inner or [{"type": "string"}]
    else:
        made["type"] = kind
    if kind == "array" and inner:
        made["items"] = inner[0]
    elif kind == "object" and inner:
        made["properties"] = {f"{rng.choice('abc')}{i}": item for i, item in enumerate(inner)}
        made["required"] = list(made["properties"])[: rng.randint(0, 2)]
    elif kind == "string" and rng.random() < 0.4:
        made["enum"] = ["x", "y"][: rng.randint(1, 2)]
    if rng.random() < 0.2:
        made["nullable"] = rng.random() < 0.7
    if rng.random() < 0.2:
        made["default"] = 'd"'
    return made


def tool(rng: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {"name": rng.choice(["f", "g"]), "description": "Two\nlines & é"}
    if rng.random() < 0.9:
        properties = {f"{rng.choice('abc')}{i}": schema(rng) for i in range(rng.randint(0, 4))}
        required = list(properties)[: rng.randint(0, 2)]
        made["parameters"] = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": made}


def talk(rng: random.Random) -> list[dict[str, Any]]:
    messages = [{"role": "system", "content": "S "}] if rng.random() < 0.5 else []
    for _ in range(rng.randint(1, 3)):
        messages.append({"role": "user", "content": " q "})
        while rng.random() < 0.4:
            given = {key: rng.choice(["é", 1, 1.5, True, None, ["x"]]) for key in "yx"}
            call = {"type": "function", "function": {"name": "f", "arguments": given}}
            said = rng.choice(["", " Let me. "])
            messages.append({"role": "assistant", "content": said, "tool_calls": [call]})
            messages += [{"role": "tool", "content": 'su"n'}] * rng.randint(0, 1)
        messages.append({"role": "assistant", "content": rng.choice(["a", "<think>t</think>b"])})
    return messages


@pytest.mark.parametrize("name", REAL_FILES)
def test_ours_render_tools_as_the_real_ones_do(name, shared_data):
    from transformers.utils.chat_template_utils import render_jinja_template

    real = (shared_data / "chat_templates" / f"{REAL_FILES[name]}.jinja").read_text()
    ours = find_template(name).text
    for seed in range(60):
        rng = random.Random(seed)
        given = {
            "conversations": [talk(rng)],
            "tools": [tool(rng) for _ in range(rng.randint(0, 3))] or None,
            "add_generation_prompt": rng.random() < 0.5,
            "bos_token": "<s>",
            "eos_token": "</s>",
        }
        wanted, _ = render_jinja_template(chat_template=real, **given)
        found, _ = render_jinja_template(chat_template=ours, **given)
        assert found == wanted, seed


@pytest.mark.parametrize(
    ("name", "template", "first"),
    [
        ("qwen2.5", None, '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n'),
        ("qwen3", None, '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n'),
        ("llama-3.1", None, '{"name": "weather", "parameters": {"city": "Bonn"}}<|eot_id|>'),
        ("gemma-4", None, '<|tool_call>call:weather{city:<|"|>Bonn<|"|>}<tool_call|>'),
        ("llama-3.1", "llama-3.1", '{"name": "weather", "parameters": {"city": "Bonn"}}<|eot_id|>'),
        ("gemma-4", "gemma-4", '<|tool_call>call:weather{city:<|"|>Bonn<|"|>}<tool_call|>'),
    ],
)
def test_tools_are_shown_and_not_learnt(name, template, first, tokenizer):
    model = get_chat_template(tokenizer(name), template) if template else tokenizer(name)
    encoded = encode_conversation(model, TALK, tools=[WRAPPED])
    own = model.apply_chat_template(TALK, tools=[WRAPPED])["input_ids"]
    assert encoded.input_ids == own
    learnt = [label for label in encoded.labels if label != MASKED]
    spans = [encoded.text[s.start : s.end] for s in encoded.spans if s.trained]
    assert spans[0].startswith(first)
    assert spans[1].lstrip().replace("<think>\n\n</think>\n\n", "").startswith("It is sunny.")
    assert model.decode(learnt) == "".join(spans)
    assert "The weather of a" in encoded.text[: encoded.spans[1].start]
    bare = encode_conversation(model, TALK)
    assert bare.labels.count(MASKED) < encoded.labels.count(MASKED)
    assert [label for label in bare.labels if label != MASKED] == learnt


def test_tools_before_the_last_question_move_no_span(shared_data, tokenizer):
    """Mistral writes them there: the prompt of the first answer is then no part of the text."""
    path = shared_data / "chat_templates" / "mistralai-Mistral-Nemo-Instruct-2407.jinja"
    model = get_chat_template(tokenizer("mistral-7b-v0.2"), (path.read_text(), None))
    call = {**CALL, "id": "abcdefgh1"}
    chat = [
        TALK[0],
        {**TALK[1], "tool_calls": [call]},
        {**TALK[2], "tool_call_id": "abcdefgh1"},
        TALK[3],
        {"role": "user", "content": "Thanks."},
        {"role": "assistant", "content": "Gladly."},
    ]
    encoded = encode_conversation(model, chat, tools=[WRAPPED])
    spans = [encoded.text[s.start : s.end] for s in encoded.spans if s.trained]
    assert [span[:12] for span in spans] == ["[TOOL_CALLS]", "It is sunny.", "Gladly.</s>"]


@pytest.mark.parametrize(
    "value",
    [
        [WRAPPED],
        [BARE],
        [{"type": "function", **BARE}],
        json.dumps([WRAPPED]),
        json.dumps(BARE),
        [json.dumps(WRAPPED)],
        [{**BARE, "parameters": json.dumps(BARE["parameters"])}],
    ],
)
@pytest.mark.parametrize("column", ["tools", "functions"])
def test_every_dialect_of_tools(value, column):
    rows = [{"messages": TALK, column: value}, {"messages": TALK, column: None}]
    table = load_rows(DataPart(), rows=rows)
    detection = detect_format(table)
    assert detection.columns["tools"] == column
    assert f"`{column}` holds the tools" in detection.reason
    assert to_messages(table[0], detection).tools == [WRAPPED]
    assert to_messages(table[1], detection).tools is None


def test_schemas_keep_their_own_keys_and_order(tmp_path):
    """Arrow would give each schema the keys of all others."""
    tools = [tool(random.Random(seed)) for seed in range(40)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"messages": TALK, "tools": [t]}) + "\n" for t in tools))
    table = load_rows(DataPart(source=str(path)))
    detection = detect_format(table)
    kept = [to_messages(row, detection).tools for row in table]
    assert json.dumps(kept) == json.dumps([[t] for t in tools])


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a"},
        {"instruction": "q", "output": "a"},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
    ],
)
def test_every_format_takes_tools(row):
    rows = load_rows(DataPart(), rows=[{**row, "tools": [BARE]}])
    assert to_messages(rows[0], detect_format(rows)).tools == [WRAPPED]


def test_tools_are_mapped_by_hand():
    rows = [{"q": "q", "a": "a", "offered": json.dumps([BARE]), "tools": "[]"}]
    columns = {"prompt": "q", "completion": "a", "functions": "offered"}
    assert to_messages(rows[0], detect_format(rows, columns=columns)).tools == [WRAPPED]
    del columns["functions"]
    assert to_messages(rows[0], detect_format(rows, columns=columns)).tools is None


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("[{", "no JSON"),
        ("[1]", "no tool with a `name`"),
        ('[{"function": {"x": 1}}]', "no tool with a `name`"),
        ("[" * 900 + "]" * 900, "levels deep"),
        ("[" * 99999, "no JSON"),
        ('[{"name": "f", "parameters": "{"}]', "no JSON"),
    ],
)
def test_tools_that_are_none_name_the_row(value, why):
    rows = [{"messages": TALK, "tools": text} for text in (json.dumps([BARE]), value)]
    detection = detect_format(rows)
    assert detection.disagreeing == [1]
    with pytest.raises(RowInvalid, match="Row 1") as caught:
        to_messages(rows[1], detection, number=1)
    assert why in caught.value.why
    assert "`tools`" in caught.value.why


def test_preview_check_and_training_see_the_same(tokenizer):
    rows = [{"messages": TALK, "tools": [BARE]}, {"messages": TALK[:1] + TALK[3:], "tools": None}]
    model = tokenizer("qwen2.5")
    prepared = prepare_data(Recipe(), model, rows=rows)
    items = preview_rows(Recipe(), model, rows=rows)
    assert [item["tools"] for item in items] == [[WRAPPED], None]
    shown = [item["view"]["tokens"] for item in items]
    wanted = [
        model.apply_chat_template(messages, tools=tools)["input_ids"]
        for messages, tools in [(TALK, [WRAPPED]), (rows[1]["messages"], None)]
    ]
    assert prepared.train["input_ids"][:] == wanted
    assert [[cell["id"] for cell in cells] for cells in shown] == wanted
    assert [
        [cell["id"] if cell["trained"] else MASKED for cell in cells] for cells in shown
    ] == prepared.train["labels"][:]
    report = check(Recipe(), rows=rows, tokenizer=model, near_duplicates=False)
    assert report.findings == []
    assert report.statistics.tokens == sum(map(len, wanted))


def test_a_template_that_hides_tools_is_said(tokenizer):
    rows = [{"messages": TALK[:1] + TALK[3:], "tools": [BARE]}]
    statistics = prepare_data(Recipe.of(chat_template="chatml"), tokenizer("qwen2.5"), rows=rows)
    assert statistics.statistics.hidden_tools == 1
    shown = prepare_data(Recipe(), tokenizer("qwen2.5"), rows=rows).statistics
    assert shown.hidden_tools == 0


@pytest.mark.parametrize("name", ["chatml", "alpaca", "phi-3.5", "llama-3", "gemma-3"])
def test_templates_without_tools_are_known(name, tokenizer):
    assert not Renderer(get_chat_template(tokenizer("qwen2.5"), name)).shows_tools


@pytest.mark.parametrize("name", [*REAL_FILES, "qwen3-instruct", "qwen3-thinking"])
def test_templates_with_tools_are_known(name, tokenizer):
    assert Renderer(get_chat_template(tokenizer("qwen2.5"), name)).shows_tools


def test_many_lists_of_tools_keep_few_renderers(tokenizer):
    encoder = Encoder(tokenizer("qwen2.5"))
    texts = [
        encoder.render(Conversation(TALK, [{"type": "function", "function": {"name": f"f{n}"}}]))[0]
        for n in range(200)
    ]
    assert all(f'"f{number}"' in text for number, text in enumerate(texts))
    assert len(encoder._renderers) <= 64


def test_tools_that_hold_themselves_are_refused(tokenizer):
    deep: dict[str, Any] = {"name": "f"}
    for _ in range(5000):
        deep = {"name": "f", "parameters": deep}
    around: dict[str, Any] = {"name": "f"}
    around["parameters"] = around
    for tools in ([deep], [around], [{"name": lambda: None}]):
        with pytest.raises(RowInvalid, match="`tools` is no JSON"):
            encode_conversation(tokenizer("qwen2.5"), TALK, tools=tools)


def test_a_column_of_another_name_is_mapped_to_the_tools_alone():
    row = {"question": "Hi", "answer": "Ho", "api": json.dumps([BARE])}
    assert to_messages(row, detect_format([row])).tools is None
    found = detect_format([row], columns={"tools": "api"})
    assert (found.format, "`api` holds the tools" in found.reason) == ("prompt_completion", True)
    assert to_messages(row, found).tools == [WRAPPED]
