"""Which tokens are learnt: expected words written by hand, for real tokenizers and templates."""

from __future__ import annotations

import pytest

from tunebook.data.masking import MASKED, Encoder, encode_conversation, encode_text
from tunebook.data.rendering import Renderer
from tunebook.data.templates import get_chat_template, without_generation_marks
from tunebook.errors import ModelInvalid, RowInvalid, TemplateInvalid

# tokenizer and template: what stands after an answer, and whether the template cuts blanks off
OWN = {
    "llama-3.1": ("<|eot_id|>", True),
    "qwen2.5": ("<|im_end|>", False),
    "qwen3": ("<|im_end|>", False),
    "phi-3.5": ("<|end|>", False),
    "mistral-7b-v0.2": ("</s>", False),
    "gemma-4": ("<turn|>", True),
}
OURS = {
    ("qwen2.5", "chatml"): ("<|im_end|>", False),
    ("qwen3", "qwen-2.5"): ("<|im_end|>", False),
    ("llama-3.1", "llama-3"): ("<|eot_id|>", True),
    ("llama-3.1", "llama-3.1"): ("<|eot_id|>", True),
    ("llama-2", "mistral"): ("</s>", False),
    ("phi-3.5", "phi-3.5"): ("<|end|>", False),
    ("gemma-4", "gemma"): ("<end_of_turn>", True),
    ("gpt2", "alpaca"): ("<|endoftext|>", False),
    ("mistral-7b-v0.2", "zephyr"): ("</s>", False),
}
CHATS = [
    ["Hi", "Hello there."],
    ["Was ist das?", "Ein Papagei 🦜, 日本語, 🏳️‍🌈 und e\u0301.", "x", "t"],
    ["a", "e", "b", "im", "c", "assistant"],
    ["user", "user", "assistant\n", "assistant: user"],
    ["q", "", "r", "two\n\nlines"],
    ["q", "ends in blanks  ", "r", "ends in a line\n"],
]


def learnt(tokenizer, encoded) -> list[str]:
    """Each learnt stretch of tokens, decoded."""
    runs: list[list[int]] = []
    before = MASKED
    for label in encoded.labels:
        if label != MASKED:
            if before == MASKED:
                runs.append([])
            runs[-1].append(label)
        before = label
    return [tokenizer.decode(run) for run in runs]


def expected(said: list[str], end: str, cuts: bool) -> list[str]:
    return [(answer.strip() if cuts else answer) + end for answer in said[1::2]]


def normal(text: str) -> str:
    """Qwen writes accents as one character."""
    return text.replace("e\u0301", "é")


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("said", CHATS)
def test_own_templates(name, said, tokenizer, chat):
    model = tokenizer(name)
    end, cuts = OWN[name]
    wanted = expected(said, end, cuts)
    if name == "qwen3":  # its template writes an empty thought before the last answer
        wanted[-1] = "<think>\n\n</think>\n\n" + wanted[-1]
    check_learnt(model, chat(None, *said), wanted)


@pytest.mark.parametrize(("name", "template"), OURS)
@pytest.mark.parametrize("said", CHATS)
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_our_templates_with_and_without_their_marks(name, template, said, system, tokenizer, chat):
    model = get_chat_template(tokenizer(name), template)
    wanted = expected(said, *OURS[name, template])
    with_marks = check_learnt(model, chat(system, *said), wanted)
    if OURS[name, template][0] in model.all_special_tokens:
        model.chat_template = without_generation_marks(model.chat_template)
        assert check_learnt(model, chat(system, *said), wanted) == with_marks


def check_learnt(model, messages, wanted):
    encoded = encode_conversation(model, messages)
    runs = learnt(model, encoded)
    # Phi's end token swallows the line end behind it, SentencePiece may drop a blank in front
    assert [normal(run).rstrip("\n").strip(" ") for run in runs] == [
        normal(text).rstrip("\n").strip(" ") for text in wanted
    ]
    spans = [encoded.text[s.start : s.end] for s in encoded.spans if s.trained]
    assert spans == wanted
    assert encoded.input_ids == model(encoded.text, add_special_tokens=False)["input_ids"]
    return encoded.labels


@pytest.mark.parametrize("name", [*OWN, "gpt2", "llama-2"])
def test_the_rendering_is_transformers_own(name, tokenizer, chat):
    model = tokenizer(name) if name in OWN else get_chat_template(tokenizer(name), "chatml")
    messages = chat(None, "Hi 🦜", " yes ", "and?", "no")
    encoded = encode_conversation(model, messages)
    assert encoded.input_ids == model.apply_chat_template(messages)["input_ids"]


@pytest.mark.parametrize("start", ["", " ", "\n", "\n\n", "  \n"])
def test_a_token_that_begins_in_the_header_is_not_learnt(start, tokenizer, chat):
    model = get_chat_template(tokenizer("qwen2.5"), "chatml")
    encoded = encode_conversation(model, chat(None, "q", start + "word"))
    header = model("<|im_start|>assistant\n")["input_ids"]
    first = next(i for i, label in enumerate(encoded.labels) if label != MASKED)
    place = encoded.text.index("assistant\n") + len("assistant\n")
    assert encoded.offsets[first][0] >= place
    assert all(a < place for a, _ in encoded.offsets[:first])
    assert encoded.input_ids[first - 2] == header[1]
    assert learnt(model, encoded)[0].lstrip() == "word<|im_end|>"


def test_what_is_no_text_is_refused_by_name(tokenizer, chat):
    model = tokenizer("qwen2.5")
    around: list[object] = []
    around.append(around)
    for content in (around, [[]] * 2):
        with pytest.raises(TemplateInvalid):
            encode_conversation(model, [{"role": "user", "content": content}])
    with pytest.raises(RowInvalid, match="no character"):
        encode_conversation(model, chat(None, "half \ud83e", "a"))


def test_last_response_and_all(tokenizer, chat):
    model = tokenizer("qwen2.5")
    messages = chat("S", "q", "first", "r", "second")
    last = encode_conversation(model, messages, train_on="last_response")
    assert learnt(model, last) == ["second<|im_end|>"]
    everything = encode_conversation(model, messages, train_on="all")
    assert everything.labels == everything.input_ids


@pytest.mark.parametrize(
    ("train_on", "expected"),
    [("responses", ["two<|im_end|>"]), ("last_response", ["two<|im_end|>"])],
)
def test_a_message_that_says_so_is_never_learnt(train_on, expected, tokenizer, chat):
    messages = chat(None, "q", "one", "r", "two")
    messages[1]["train"] = False
    model = tokenizer("qwen2.5")
    assert learnt(model, encode_conversation(model, messages, train_on=train_on)) == expected
    messages[3]["train"] = False
    assert learnt(model, encode_conversation(model, messages, train_on=train_on)) == []


def test_with_everything_learnt_a_message_can_still_be_left_out(tokenizer, chat):
    model = tokenizer("qwen2.5")
    messages = chat("S", "secret", "one", "r", "two")
    messages[1]["train"] = messages[2]["train"] = False
    for every_turn in (False, True):
        encoded = Encoder(model, train_on="all", every_turn=every_turn)(messages)
        words = "".join(learnt(model, encoded))
        assert "secret" not in words
        assert "one" not in words
        assert words.startswith("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n")
        assert words.endswith("<|im_start|>assistant\ntwo<|im_end|>\n")
    untouched = chat("S", "secret", "one", "r", "two")
    assert encoded.text == encode_conversation(model, untouched).text


def test_spans_name_every_turn(tokenizer, chat):
    encoded = encode_conversation(tokenizer("llama-3.1"), chat("S", " q ", "a"))
    found = [(s.role, s.turn, s.trained, encoded.text[s.start : s.end]) for s in encoded.spans]
    assert found == [
        ("system", 0, False, "S"),
        ("user", 1, False, "q"),
        ("assistant", 2, True, "a<|eot_id|>"),
    ]


def test_a_conversation_without_an_answer_has_no_labels(tokenizer, chat):
    encoded = encode_conversation(tokenizer("qwen2.5"), chat(None, "q"))
    assert set(encoded.labels) == {MASKED}


def test_the_cut_is_on_the_right(tokenizer, chat):
    model = tokenizer("llama-3.1")
    whole = encode_conversation(model, chat(None, "q", "one two three four five"))
    cut = encode_conversation(
        model, chat(None, "q", "one two three four five"), max_length=len(whole.input_ids) - 3
    )
    assert cut.truncated
    assert not whole.truncated
    assert cut.length == whole.length
    assert cut.input_ids == whole.input_ids[:-3]
    assert learnt(model, cut) == ["one two three"]
    exact = encode_conversation(
        model, chat(None, "q", "one two three four five"), max_length=whole.length
    )
    assert not exact.truncated


def test_one_start_token_only(tokenizer, chat):
    for name in ("llama-3.1", "mistral-7b-v0.2", "gemma-4"):
        model = tokenizer(name)
        encoded = encode_conversation(model, chat(None, "q", "a"))
        assert encoded.input_ids.count(model.bos_token_id) == 1
        assert encoded.input_ids[0] == model.bos_token_id


@pytest.mark.parametrize("name", ["llama-3.1", "llama-2", "gpt2", "qwen2.5", "gemma-4"])
def test_plain_text_ends_with_the_end_token(name, tokenizer):
    model = tokenizer(name)
    encoded = encode_text(model, "Once upon 🦜")
    bare = model("Once upon 🦜")["input_ids"]
    assert encoded.input_ids == [*bare, model.eos_token_id]
    assert encoded.labels == encoded.input_ids
    assert encoded.text.endswith("Once upon 🦜" + model.eos_token)
    assert encode_text(model, "a b c d e f g", max_length=3).truncated


def test_a_tokenizer_without_a_template_says_what_to_set(tokenizer, chat):
    with pytest.raises(TemplateInvalid, match=r"model\.chat_template.*chatml"):
        encode_conversation(tokenizer("llama-2"), chat(None, "q", "a"))


def test_a_template_that_refuses_gives_its_reason(tokenizer, chat):
    with pytest.raises(TemplateInvalid, match="must alternate"):
        encode_conversation(tokenizer("mistral-7b-v0.2"), chat("S", "q", "a"))


def test_a_template_that_counts_words_cannot_be_proved(tokenizer, chat):
    counting = get_chat_template(
        tokenizer("gpt2"),
        "{% for m in messages %}{{ m['content']|length }}:{{ m['content'] }}|{% endfor %}"
        "{% if add_generation_prompt %}?{% endif %}",
    )
    with pytest.raises(TemplateInvalid, match="turn 1"):
        encode_conversation(counting, chat(None, "q", "answer"))


def test_a_slow_tokenizer_is_refused(chat):
    class Slow:
        is_fast = False

    with pytest.raises(ModelInvalid, match="Slow"):
        encode_conversation(Slow(), chat(None, "q", "a"))  # type: ignore[arg-type]


def test_rewritten_history_is_still_found(tokenizer, chat):
    """Qwen3 drops the thoughts of earlier answers and keeps the last one's."""
    model = tokenizer("qwen3")
    thought = "<think>\nhm\n</think>\n\n"
    encoded = encode_conversation(model, chat(None, "q", thought + "one", "r", thought + "two"))
    assert learnt(model, encoded) == ["one<|im_end|>", thought + "two<|im_end|>"]


# Templates whose conversation needs more than user and assistant, or that end no turn.
_NOT_PLAIN = ["tool_use", "functionary", "firefunction", "Hermes"]


def test_every_real_template_gives_its_answers_back(shared_data, tokenizer, chat):
    """Over all the models' own templates: what is learnt holds the answer and no question."""
    base = tokenizer("qwen2.5")
    tried, refused = 0, []
    for path in sorted((shared_data / "chat_templates").glob("*.jinja")):
        if any(word in path.name for word in _NOT_PLAIN):
            continue
        model = get_chat_template(base, (path.read_text(), None))
        messages = chat(None, "Question one?", "Answer one.", "Question two?", "Answer two.")
        try:
            text, spans = Renderer(model).render_answers(messages, [1, 3])
        except TemplateInvalid as error:
            refused.append((path.name, error.why))
            continue
        tried += 1
        learnt_texts = [text[s.start : s.end] for s in spans]
        assert "Answer one." in learnt_texts[0], path.name
        assert "Answer two." in learnt_texts[1], path.name
        assert not any("Question" in words for words in learnt_texts), path.name
    assert tried >= 60, refused


@pytest.mark.parametrize(
    ("file", "end"),
    [
        ("GLM-4.6", ""),
        ("Apertus-8B-Instruct", ""),
        ("tencent-Hy3", ""),
        ("Qwen-Qwen3-0.6B", "<|im_end|>"),
        ("openai-gpt-oss-120b", "<|return|>"),
        ("LFM2.5-8B-A1B", "<|im_end|>"),
        ("NVIDIA-Nemotron-Nano-v2", "<SPECIAL_12>"),
        ("CohereForAI-c4ai-command-r7b-12-2024-tool_use", "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"),
    ],
)
def test_what_ends_the_last_turn_is_known(file, end, shared_data, tokenizer):
    text = (shared_data / "chat_templates" / f"{file}.jinja").read_text()
    assert Renderer(get_chat_template(tokenizer("llama-3.1"), text)).end_of_turn == end


def test_a_dropped_tool_call_is_said(tokenizer, chat):
    messages = chat(None, "q", "a")
    messages[1]["tool_calls"] = [{"function": {"name": "weather", "arguments": {}}}]
    for template in ("chatml", "phi-3.5", "zephyr"):
        with pytest.raises(TemplateInvalid, match="weather"):
            encode_conversation(get_chat_template(tokenizer("phi-3.5"), template), messages)


def test_results_of_tools_are_not_learnt(tokenizer, chat):
    call = {"function": {"name": "weather", "arguments": {"city": "Bonn"}}}
    messages = [
        *chat(None, "q"),
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "Fine."},
    ]
    encoded = encode_conversation(tokenizer("qwen3"), messages)
    assert [encoded.text[s.start : s.end] for s in encoded.spans if s.trained] == [
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call><|im_end|>',
        "<think>\n\n</think>\n\nFine.<|im_end|>",
    ]
