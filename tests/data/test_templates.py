"""Our templates against the models' own, byte for byte, and how a tokenizer gets one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunebook.data.rendering import Renderer
from tunebook.data.templates import (
    CHAT_TEMPLATES,
    find_template,
    get_chat_template,
    with_recipe_template,
    without_generation_marks,
)
from tunebook.errors import TemplateInvalid
from tunebook.recipe import Recipe

REAL_FILES = {
    "llama-3.1": "meta-llama-Llama-3.1-8B-Instruct",
    "llama-3.3": "meta-llama-Llama-3.3-70B-Instruct",
    "qwen-2.5": "Qwen-Qwen2.5-7B-Instruct",
    "gemma": "google-gemma-2-2b-it",
    "phi-3.5": "microsoft-Phi-3.5-mini-instruct",
}
GOLDENS = {"chatml": "teknium/OpenHermes-2.5-Mistral-7B", "llama-3": "Llama-3"}
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
CHATS = [
    (None, ["Hi", "Hello 🦜"]),
    (None, [" Hi\n", "\n Hello \n", "And\n\nthen?", "日本"]),
    ("Be brief.", ["Hi", "Hello", "x", "", "y", "z"]),
    ("  Two\nlines ", ["<b>q</b>", "a & b"]),
    (None, ["a question alone"]),
]


def render(template: str, messages: list[dict[str, str]], prompt: bool = False, **more: str) -> str:
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
    assert render(ours, messages, prompt) == render(real, messages, prompt)


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


def test_alpaca_and_zephyr_write_what_they_are_known_for(chat):
    alpaca = render(CHAT_TEMPLATES["alpaca"].text, chat(None, "q", "a"))
    assert alpaca.startswith("<s>Below is an instruction that describes a task.")
    assert alpaca.endswith("### Instruction:\nq\n\n### Response:\na</s>\n\n")
    zephyr = render(CHAT_TEMPLATES["zephyr"].text, chat("S", "q", "a"), True)
    assert zephyr == "<|system|>\nS</s>\n<|user|>\nq</s>\n<|assistant|>\na</s>\n<|assistant|>\n"


@pytest.mark.parametrize("name", [name for name, t in CHAT_TEMPLATES.items() if t.file])
def test_without_marks_a_template_renders_the_same(name, chat):
    text = CHAT_TEMPLATES[name].text
    bare = without_generation_marks(text)
    assert "generation " not in bare.replace("add_generation", "")
    for system, said in CHATS:
        messages = chat(system, *said)
        for prompt in (False, True):
            assert render(bare, messages, prompt) == render(text, messages, prompt)


def test_every_template_with_a_file_is_marked():
    assert len(CHAT_TEMPLATES) >= 10
    for template in CHAT_TEMPLATES.values():
        if template.text is not None:
            assert template.text.count("endgeneration") == 1


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("LLaMA3", "llama-3"),
        ("llama-31", "llama-3.1"),
        ("llama_3.2", "llama-3.1"),
        ("qwen2.5", "qwen-2.5"),
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
