"""Our templates against the models' own, byte for byte, and how a tokenizer gets one."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from tunebook.data.mismatch import template_mismatch
from tunebook.data.rendering import Renderer
from tunebook.data.templates import (
    CHAT_TEMPLATES,
    TEMPLATES,
    find_template,
    get_chat_template,
    with_recipe_template,
    without_generation_marks,
)
from tunebook.errors import TemplateInvalid
from tunebook.recipe import Recipe

REAL_FILES = {
    "llama-3.1": "meta-llama-Llama-3.1-8B-Instruct",
    "llama-3.2": "meta-llama-Llama-3.2-3B-Instruct",
    "llama-3.3": "meta-llama-Llama-3.3-70B-Instruct",
    "qwen-2.5": "Qwen-Qwen2.5-7B-Instruct",
    "qwen-3": "Qwen-Qwen3-0.6B",
    "gemma": "google-gemma-2-2b-it",
    "gemma-4": "google-gemma-4-31B-it",
    "gemma-4-thinking": "google-gemma-4-31B-it",
    "gpt-oss": "openai-gpt-oss-120b",
    "lfm-2": "LFM2-8B-A1B",
    "lfm-2.5": "LFM2.5-Instruct",
    "phi-3.5": "microsoft-Phi-3.5-mini-instruct",
}
GOLDENS = {
    "chatml": "teknium/OpenHermes-2.5-Mistral-7B",
    "yi-chat": "teknium/OpenHermes-2.5-Mistral-7B",
    "llama-3": "Llama-3",
    "phi-4": "phi-4",
    "starling": "openchat/openchat-3.5-0106",
}
# The names that tutorials use: all of them must be there.
KNOWN = """unsloth,zephyr,chatml,mistral,llama,vicuna,vicuna_old,vicuna old,alpaca,gemma,gemma_chatml,
gemma2,gemma2_chatml,llama-3,llama3,phi-3,phi-35,phi-3.5,llama-3.1,llama-31,llama-3.2,llama-32,
llama-3.3,llama-33,qwen-2.5,qwen-25,qwen25,qwen2.5,qwen-2.5-coder,qwen-25-coder,qwen25-coder,
qwen2.5-coder,phi-4,gemma-3,gemma3,qwen-3,qwen3,gemma-3n,gemma3n,gemma-4,gemma4,gemma-4-thinking,
gemma4-thinking,gpt-oss,gptoss,qwen3-instruct,qwen3-thinking,lfm-2,lfm-2.5,starling,yi-chat"""
# Written by hand from each model's documented format; no file of the model is at hand.
BY_HAND = {
    "llama": "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nq [/INST] a </s><s>[INST] r [/INST]",
    "vicuna": "<s>S USER: q ASSISTANT: a</s>USER: r ASSISTANT:",
    "vicuna_old": "<s>S\n### Human: q\n### Assistant: a</s>\n### Human: r\n### Assistant:",
    "unsloth": "<s>S\n>>> User: q\n>>> Assistant: a</s>\n>>> User: r\n>>> Assistant: ",
    "gemma-3": "<s><start_of_turn>user\nS\n\nq<end_of_turn>\n<start_of_turn>model\na<end_of_turn>\n"
    "<start_of_turn>user\nr<end_of_turn>\n<start_of_turn>model\n",
    "gemma_chatml": "<s><|im_start|>system\nS<|im_end|>\n<|im_start|>user\nq<|im_end|>\n"
    "<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n",
    "qwen3-instruct": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nq<|im_end|>\n"
    "<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n",
    "qwen3-thinking": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>"
    "assistant\na<|im_end|>\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n<think>\n",
    "zephyr": "<|system|>\nS</s>\n<|user|>\nq</s>\n<|assistant|>\na</s>\n<|user|>\nr</s>\n<|assistant|>\n",
    "alpaca": "<s>S\n\n### Instruction:\nq\n\n### Response:\na</s>\n\n### Instruction:\nr\n\n### Response:\n",
    "mistral": "<s>[INST] S\n\nq [/INST]a</s>[INST] r [/INST]",
}
BY_HAND["gemma-3n"] = BY_HAND["gemma-3"]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
TOOL_CHATS = [
    [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": said, "tool_calls": [CALL]},
        *[{"role": "tool", "content": 'sunny "x"'}] * results,
        {"role": "assistant", "content": "It is sunny."},
    ]
    for said, results in [("", 1), ("Let me see.", 1), ("", 2)]
]
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
CHATS = [
    (None, ["Hi", "Hello 🦜"]),
    (None, [" Hi\n", "\n Hello \n", "And\n\nthen?", "日本"]),
    ("Be brief.", ["Hi", "Hello", "x", "", "y", "z"]),
    ("  Two\nlines ", ["<b>q</b>", "a & b"]),
    (None, ["a question alone"]),
    (None, ["q", "<think>\nhm\n</think>\n\none", "r", "<think>\nho\n</think>\n\ntwo "]),
]


def render(template: str, messages: list[Any], prompt: bool = False, **more: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, _ = render_jinja_template(
        conversations=[messages],
        chat_template=template,
        add_generation_prompt=prompt,
        **{**VARIABLES, **more},
    )
    return texts[0]


@pytest.mark.parametrize("name", REAL_FILES)
@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize(("system", "said"), CHATS)
def test_ours_render_what_the_real_ones_do(name, prompt, system, said, shared_data, chat):
    if name == "gemma" and system is not None:
        pytest.skip("Gemma's own template refuses a system message")
    real = (shared_data / "chat_templates" / f"{REAL_FILES[name]}.jinja").read_text()
    ours = find_template(name).text
    messages = chat(system, *said)
    thinking: dict[str, Any] = {"enable_thinking": True} if name.endswith("thinking") else {}
    assert render(ours, messages, prompt) == render(real, messages, prompt, **thinking)


@pytest.mark.parametrize("name", ["llama-3.1", "llama-3.2", "qwen-2.5", "qwen-3", "gpt-oss"])
@pytest.mark.parametrize("messages", TOOL_CHATS)
def test_ours_render_tool_calls_as_the_real_ones_do(name, messages, shared_data):
    real = (shared_data / "chat_templates" / f"{REAL_FILES[name]}.jinja").read_text()
    ours = find_template(name).text
    for chat in (messages, messages[:2], [{"role": "system", "content": "S"}, *messages]):
        assert render(ours, chat) == render(real, chat)


@pytest.mark.parametrize("name", ["qwen-2.5", "qwen-3", "lfm-2", "lfm-2.5"])
def test_ours_render_lists_of_tools_as_the_real_ones_do(name, shared_data, chat):
    real = (shared_data / "chat_templates" / f"{REAL_FILES[name]}.jinja").read_text()
    tools = [{"type": "function", "function": {"name": "w", "description": "<d>"}}]
    for system in (None, "S"):
        messages = chat(system, "q", "a")
        ours = render(find_template(name).text, messages, tools=tools)
        assert ours == render(real, messages, tools=tools)


@pytest.mark.parametrize("name", BY_HAND)
def test_ours_render_what_is_documented(name, chat):
    messages = chat("S", "q", "a", "r")
    assert render(find_template(name).text, messages, True) == BY_HAND[name]


def test_every_known_name_is_there_and_every_template_is_held_against_something():
    known = [name.strip() for name in KNOWN.split(",")]
    assert len(known) == 51
    assert set(known) <= set(CHAT_TEMPLATES)
    held = {find_template(name).name for name in [*REAL_FILES, *GOLDENS, *BY_HAND]}
    same_file = {"qwen-2.5-coder"}
    assert {entry.name for entry in TEMPLATES} - held - same_file == {"tunebook"}


def test_qwen_thinking_opens_no_second_thought(chat):
    """By hand: a prompt ends in an open thought; the text learnt begins behind it."""
    text = render(
        CHAT_TEMPLATES["qwen3-thinking"].text, chat(None, "q", "<think>\nhm\n</think>\n\na")
    )
    assert text.endswith("<|im_start|>assistant\n<think>\nhm\n</think>\n\na<|im_end|>\n")


def test_llama_takes_the_date_from_its_variable(shared_data, chat):
    real = (shared_data / "chat_templates" / f"{REAL_FILES['llama-3.1']}.jinja").read_text()
    ours = CHAT_TEMPLATES["llama-3.1"].text
    text = render(ours, chat(None, "a", "b"), date_string="01 Jan 2030")
    assert "Today Date: 01 Jan 2030\n" in text
    assert text == render(real, chat(None, "a", "b"), date_string="01 Jan 2030")


@pytest.mark.parametrize("name", GOLDENS)
def test_ours_render_the_goldens(name, shared_data):
    goldens = json.loads((shared_data / "chat_templates" / "goldens.json").read_text())
    case = next(c for c in goldens["cases"] if c["name"] == GOLDENS[name])
    text = render(
        CHAT_TEMPLATES[name].text,
        goldens["messages"],
        goldens["add_generation_prompt"],
        bos_token=case["bos_token"],
        eos_token=case["eos_token"],
    )
    assert text == case["expected"]


def test_mistral_renders_what_the_tokenizers_own_template_does(tokenizer, chat):
    own = tokenizer("mistral-7b-v0.2")
    for prompt in (False, True):
        for system, said in CHATS:
            if system is None:
                messages = chat(None, *said)
                ours = render(CHAT_TEMPLATES["mistral"].text, messages, prompt)
                assert ours == render(own.chat_template, messages, prompt)


def test_mistral_puts_a_system_message_before_the_first_question(chat):
    text = render(CHAT_TEMPLATES["mistral"].text, chat("S", "q", "a", "r", "b"))
    assert text == "<s>[INST] S\n\nq [/INST]a</s>[INST] r [/INST]b</s>"


@pytest.mark.parametrize("name", [t.name for t in TEMPLATES if t.file])
def test_without_marks_a_template_renders_the_same(name, chat):
    text = CHAT_TEMPLATES[name].text
    bare = without_generation_marks(text)
    assert "generation " not in bare.replace("add_generation", "")
    for system, said in CHATS:
        messages = chat(system, *said)
        for prompt in (False, True):
            assert render(bare, messages, prompt) == render(text, messages, prompt)


def test_every_template_with_a_file_is_marked():
    for template in TEMPLATES:
        if template.text is not None:
            assert "endgeneration" in template.text


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("LLaMA3", "llama-3"),
        ("llama-31", "llama-3.1"),
        ("llama_3.3", "llama-3.1"),
        ("qwen2.5", "qwen-2.5"),
        ("vicuna old", "vicuna_old"),
        ("gemma2", "gemma"),
        ("phi-3", "phi-3.5"),
        ("tunebook", "tunebook"),
    ],
)
def test_aliases(alias, name):
    assert find_template(alias).name == name


def test_an_unknown_name_lists_near_ones():
    with pytest.raises(TemplateInvalid, match="`chatml`"):
        find_template("chatnl")


def test_get_chat_template_leaves_the_tokenizer_given_alone(tokenizer):
    llama = tokenizer("llama-3.1")
    before = llama.chat_template, llama.eos_token
    changed = get_chat_template(llama, "chatml")
    assert changed.chat_template == CHAT_TEMPLATES["chatml"].text
    assert (llama.chat_template, llama.eos_token) == before
    assert changed.eos_token == "<|eot_id|>", "the vocabulary has no <|im_end|>"


def test_the_stop_token_becomes_the_end_token_where_the_vocabulary_has_it(tokenizer):
    qwen = tokenizer("qwen2.5")
    other = get_chat_template(qwen, (qwen.chat_template, "<|endoftext|>"))
    assert other.eos_token == "<|endoftext|>"
    assert get_chat_template(other, "chatml").eos_token == "<|im_end|>"
    assert get_chat_template(other, "chatml", map_eos_token=False).eos_token == "<|endoftext|>"


def test_mapping_understands_sharegpt_keys_and_plain_ones(tokenizer):
    mapping = {"role": "from", "content": "value", "user": "human", "assistant": "gpt"}
    mapped = get_chat_template(tokenizer("qwen2.5"), "chatml", mapping=mapping)
    share = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    plain = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    text = mapped.apply_chat_template(share, tokenize=False)
    assert text == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    assert mapped.apply_chat_template(plain, tokenize=False) == text


def test_system_message_is_put_where_there_is_none(tokenizer, chat):
    said = 'It\'s a "test" \\ with 🦜\nand lines'
    spoken = get_chat_template(tokenizer("qwen2.5"), "chatml", system_message=said)
    text = Renderer(spoken).render(chat(None, "q", "a"))
    assert text.startswith(f"<|im_start|>system\n{said}<|im_end|>\n<|im_start|>user")
    assert Renderer(spoken).render(chat("mine", "q")).startswith("<|im_start|>system\nmine<")


def test_text_that_is_not_jinja_names_its_line(tokenizer):
    with pytest.raises(TemplateInvalid, match="line 2"):
        get_chat_template(tokenizer("gpt2"), "{% for m in messages %}\n{{ m[ }}{% endfor %}")


def test_own_template_of_a_tokenizer_without_one_is_refused(tokenizer):
    with pytest.raises(TemplateInvalid, match="chatml"):
        get_chat_template(tokenizer("llama-2"), "tunebook")


def test_the_recipes_template_is_set_once(tokenizer):
    recipe = Recipe.of(chat_template="chatml")
    once = with_recipe_template(tokenizer("llama-2"), recipe)
    assert once.chat_template == CHAT_TEMPLATES["chatml"].text
    assert with_recipe_template(once, recipe) is once
    assert with_recipe_template(once, Recipe()) is once


def test_a_template_with_a_new_end_token_survives_saving(tokenizer, tmp_path: Path):
    from transformers import AutoTokenizer

    changed = get_chat_template(tokenizer("phi-3.5"), "phi-3.5")
    changed.save_pretrained(tmp_path)
    back = AutoTokenizer.from_pretrained(tmp_path)
    assert back.eos_token == "<|end|>"
    assert back.chat_template == changed.chat_template
    assert back("Hi 🦜")["input_ids"] == changed("Hi 🦜")["input_ids"]


ESCAPES = [
    "{{ ''.__class__.__mro__[1] }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ raise_exception.__globals__['os'] }}",
    "{% set x = messages.append(1) %}",
]
ENDLESS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{{ 'a' * 10000000000 }}",
    "{{ 9 ** 9 ** 9 }}",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_a_template_that_reaches_out_of_its_sandbox_is_refused(text, tokenizer, chat):
    speaking = get_chat_template(tokenizer("gpt2"), text)
    with pytest.raises(TemplateInvalid) as caught:
        Renderer(speaking).render(chat(None, "q", "a"))
    assert "sandbox" in caught.value.what or "undefined" in caught.value.why


@pytest.mark.parametrize("text", ENDLESS)
def test_a_template_that_never_ends_is_stopped(text, tokenizer, chat, monkeypatch):
    monkeypatch.setattr("tunebook.data.sandbox._STEPS", 100_000)
    speaking = get_chat_template(tokenizer("gpt2"), text)
    with pytest.raises(TemplateInvalid):
        Renderer(speaking).render(chat(None, "q", "a"))


def test_counting_leaves_transformers_own_rendering_alone(tokenizer, chat, monkeypatch):
    monkeypatch.setattr("tunebook.data.sandbox._STEPS", 3)
    own = tokenizer("qwen2.5")
    messages = chat(None, *["x"] * 20)
    with pytest.raises(TemplateInvalid, match="too much"):
        Renderer(own).render(messages)
    assert own.apply_chat_template(messages, tokenize=False).count("<|im_start|>") == 21


@pytest.mark.parametrize(
    ("name", "chosen", "said"),
    [
        ("qwen2.5", "qwen-2.5", None),
        ("qwen2.5", "tunebook", None),
        ("qwen2.5", "", None),
        ("qwen2.5", None, None),
        ("qwen3", "qwen-3", None),
        ("llama-3.1", "llama-3.3", None),
        ("phi-3.5", "phi-3", None),
        ("mistral-7b-v0.2", "mistral", None),
        ("gemma-4", "gemma4", None),
        ("gpt2", "chatml", None),  # no template of its own: nothing to differ from
        ("qwen2.5", "chatml", "You are Qwen"),
        ("qwen3", "qwen3-instruct", "<think>"),
        ("llama-3.1", "llama-3", "Cutting Kno"),
        ("llama-3.1", "chatml", "<|im_start|>"),
        ("gemma-4", "gemma-3", "<start_of_turn>"),
    ],
)
def test_a_template_that_is_not_the_models_is_noticed(name, chosen, said, tokenizer):
    found = template_mismatch(tokenizer(name), chosen)
    if said is None:
        assert found is None
    else:
        assert found is not None
        assert said in found


def test_the_page_of_templates_is_what_the_table_says(project_root):
    made = runpy.run_path(str(project_root / "docs" / "generate.py"))
    assert (project_root / "docs" / "templates.md").read_text() == made["templates_page"]()
    assert all(entry.about for entry in TEMPLATES)
