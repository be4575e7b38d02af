"""Go templates render what the Jinja templates do, and say where they cannot."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import go_templates
import pytest
from transformers import GenerationConfig

from tunebook.data.rendering import Renderer
from tunebook.data.templates import TEMPLATES, get_chat_template
from tunebook.export.go_template import build
from tunebook.export.ollama import adds_start, modelfile, stop_tokens, write_modelfile
from tunebook.models.loading import load_tokenizer
from tunebook.recipe import ModelPart

CHATS = [
    ["What is 2 + 2?"],
    ["Hi!", "Hello.\nWho are you?", "Nobody {{ you }} know."],
    ["a", "b", "c", "d", "e", "f", "ünï\n\n- code: `{% x %}`"],
]
SYSTEMS = [None, 'Be brief.\n\nAlways "rhyme".']


def messages(system: str | None, said: list[str]) -> list[dict[str, str]]:
    head = [] if system is None else [{"role": "system", "content": system}]
    roles = ("user", "assistant")
    return head + [{"role": roles[n % 2], "content": text} for n, text in enumerate(said)]


@pytest.fixture(scope="module")
def own() -> Any:
    return load_tokenizer(ModelPart())


@pytest.fixture(scope="module")
def real(unpacked_tokenizers: dict[str, Path]) -> Any:
    """A tokenizer that puts a start token before every text."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(unpacked_tokenizers["llama-2"])


@pytest.mark.parametrize("name", [entry.name for entry in TEMPLATES])
def test_a_go_template_renders_what_the_jinja_template_does(name: str, own: Any) -> None:
    tokenizer = get_chat_template(own, name)
    template = modelfile("m.gguf", tokenizer).template
    start = tokenizer.bos_token if adds_start(tokenizer) else ""
    assert template is not None
    for system, said in itertools.product(SYSTEMS, CHATS):
        chat = messages(system, said)
        exact = Renderer(tokenizer).render(chat, generation_prompt=True)
        assert go_templates.chat(template, chat) == exact.removeprefix(start)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma-3", "llama-3", "gemma_chatml"])
def test_the_start_token_is_not_written_where_the_tokenizer_puts_one(name: str, real: Any) -> None:
    tokenizer = get_chat_template(real, name)
    assert adds_start(tokenizer)
    template = modelfile("m.gguf", tokenizer).template
    for system in SYSTEMS:
        chat = messages(system, CHATS[1])
        exact = Renderer(tokenizer).render(chat, generation_prompt=True)
        assert exact.startswith("<s>")
        assert "<s>" + go_templates.chat(str(template), chat) == exact


def test_a_modelfile_holds_the_file_the_stops_and_the_sampling(own: Any, tmp_path: Path) -> None:
    generation = GenerationConfig(
        do_sample=True, temperature=0.6, top_p=0.95, repetition_penalty=1.1, eos_token_id=[2, 0]
    )
    tokenizer = get_chat_template(own, "qwen-2.5")
    made = write_modelfile(
        tmp_path,
        "tuned Q4.gguf",
        tokenizer,
        num_ctx=4096,
        generation=generation,
        system='Say "yes".',
    )
    text = (tmp_path / "Modelfile").read_text()
    assert text == made.text
    lines = text.splitlines()
    assert "FROM ./tuned Q4.gguf" in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines
    stops = stop_tokens(tokenizer, generation)
    assert {own.convert_ids_to_tokens(2), own.convert_ids_to_tokens(0)} < set(stops)
    assert "PARAMETER num_ctx 4096" in lines
    assert "PARAMETER temperature 0.6" in lines
    assert "PARAMETER repeat_penalty 1.1" in lines
    assert 'SYSTEM """Say "yes"."""' in lines
    assert "# Tools are left out" in text
    assert f'TEMPLATE """{made.template}"""' in text


def test_greedy_models_get_no_sampling(own: Any) -> None:
    assert "temperature" not in modelfile("m", own, generation=GenerationConfig()).text


@pytest.mark.parametrize(
    ("jinja", "note"),
    [
        (  # rewrites what was said before
            "{% for m in messages %}<{{ m.role }}>{{ m.content if loop.last or m.role != 'assistant'"
            " else 'cut' }}{% endfor %}<assistant>",
            "Earlier turns are not written",
        ),
        (  # refuses a system message
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>",
            "knows no system message",
        ),
        (  # puts the system message before the last question
            "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{% if loop.last and "
            "messages[0].role == 'system' %}{{ messages[0].content }}|{% endif %}{{ m.content }}"
            "{% endif %}{% endfor %}<assistant>",
            "system message is written in another way in long conversations",
        ),
        (
            "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</think>')[-1] }}"
            "{% endfor %}<assistant>",
            "Thoughts of earlier answers are kept",
        ),
        (
            "{{ strftime_now('%d %b %Y') }}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
            "{% endfor %}<assistant>",
            "The date in it stays",
        ),
    ],
)
def test_what_cannot_be_expressed_is_said_and_the_common_case_is_right(
    jinja: str, note: str, own: Any
) -> None:
    tokenizer = get_chat_template(own, jinja)
    made = modelfile("m.gguf", tokenizer)
    assert [text for text in made.notes if note in text]
    assert note in made.text
    question = messages(None, CHATS[0])
    exact = Renderer(tokenizer).render(question, generation_prompt=True)
    assert go_templates.chat(str(made.template), question) == exact


def test_a_template_that_shows_no_question_gives_a_modelfile_without_one(own: Any) -> None:
    made = modelfile("m.gguf", get_chat_template(own, "{{ messages[0].content | upper | length }}"))
    assert made.template is None
    assert "TEMPLATE" not in made.text
    assert made.text.startswith("# No template: ")
    assert "FROM ./m.gguf" in made.text


def test_braces_and_quotes_of_a_template_stay_text() -> None:
    def render(chat: list[dict[str, str]], *, generation_prompt: bool = False) -> str:
        return "".join(f'{{{{x}}}}"""{m["role"]}{{{m["content"]}' for m in chat) + "{"

    go = build(render).turns.go()
    assert '"""' not in go
    chat = messages("s", ["q", "a", "r"])
    assert go_templates.chat(go, chat) == render(chat)


def test_an_answer_without_a_question_is_left_out_and_one_to_go_on_with_stays_open(
    own: Any,
) -> None:
    template = str(modelfile("m.gguf", get_chat_template(own, "chatml")).template)
    greeting = [{"role": "assistant", "content": "Hello!"}, *messages(None, ["Hi"])]
    alone = go_templates.chat(template, messages(None, ["Hi"]))
    assert go_templates.chat(template, greeting) == alone
    begun = go_templates.chat(template, messages(None, ["Hi", "Well"]))
    assert begun == alone + "Well"
