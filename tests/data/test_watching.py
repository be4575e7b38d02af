"""A template is left out only where it cannot tell some words from others."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tunebook.data.rendering import Renderer
from tunebook.data.shapes import probe_of
from tunebook.data.templates import TEMPLATES
from tunebook.data.watching import looked_for
from tunebook.errors import TemplateInvalid

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "chat_templates"
ROLES = ("user", "assistant")
SAID = "{% set c = messages[0].content %}{% set a = messages[-1]['content'] %}<{{ c }}|{{ a }}>"


class Speaking:
    """As much of a tokenizer as rendering needs."""

    def __init__(self, template: str) -> None:
        self.special_tokens_map = {"bos_token": "<s>", "eos_token": "</s>"}
        self.chat_template = template

    def get_chat_template(self, chat_template: None = None, tools: object = None) -> str:
        return self.chat_template


def looks(template: str, **variables: Any) -> frozenset[str] | None:
    return looked_for(template, probe_of(ROLES) or [], variables, [1])


@pytest.mark.parametrize(
    "text",
    [
        "{% if c | length > 20 %}long{% endif %}",
        "{% if c|trim|count > 2 %}x{% endif %}",
        "{% if c < a %}x{% endif %}",
        "{% if c == a %}x{% endif %}",
        "{% if a in c %}x{% endif %}",
        "{% if c is eq(a) %}x{% endif %}",
        "{% if c is in('abc') %}x{% endif %}",
        "{% if c in 'abc' %}x{% endif %}",
        "{% if c is lower %}x{% endif %}",
        "{% if ('<' ~ c) == '<x' %}x{% endif %}",
        "{% if 'ab' in c ~ a %}x{% endif %}",
        "{% if (c + a) == 'xy' %}x{% endif %}",
        "{{ c[0] }}",
        "{{ c[:9] }}",
        "{{ c[::-1] }}",
        "{{ (c ~ '')[1:] }}",
        "{{ c | upper }}",
        "{{ c.lower() }}",
        "{{ c['title']() }}",
        "{{ c | tojson }}",
        "{{ c | e }}",
        "{{ '<b>' | safe ~ c }}",
        "{{ [c] }}",
        "{{ messages }}",
        "{{ messages | string }}",
        "{{ messages[0] | tojson }}",
        "{{ [c, 'x'] | sort | first }}",
        "{{ [c, 'x', 'x'] | unique | list | length }}",
        "{% for letter in c %}{{ loop.index }}{% endfor %}",
        "{% for x, y, z in [c] %}{{ x }}{{ y }}{{ z }}{% endfor %}",
        "{% set x, y, z = c %}{{ x }}{{ y }}{{ z }}",
        "{{ c.split()[0] }}",
        "{{ (c ~ a).split('x')[0] }}",
        "{{ c.split(a)[0] }}",
        "{{ c.strip('abc') }}",
        "{{ c | trim('abc') }}",
        "{{ c.find('x') }}",
        "{{ c.replace(a, '') }}",
        "{{ {c: 1}['x'] }}",
        "{{ {c: 1}.get('x') }}",
        "{{ 'x' in {c: 1} }}",
        "{{ {'x': 1}[c] }}",
        "{{ [c].index('x') if false else [c].count('x') }}",
        "{{ '%s' % c }}",
        "{{ '%5s' | format(c) }}",
        "{{ '{}'.format(c) }}",
        "{{ c.format(1) }}",
        "{{ dict(x=c) }}",
        "{{ strftime_now('%Y') }}",
        "{% filter upper %}{{ c }}{% endfilter %}",
        "{% set x %}{{ c }}{% endset %}{{ x | length }}",
        "{% macro f(t) %}{{ t | length }}{% endmacro %}{{ f(c) }}",
        "{% set ns = namespace(t='') %}{% set ns.t = ns.t ~ c %}{{ ns.t | length }}",
        "{{ messages | map(attribute='content') | list }}",
        "{{ messages | selectattr('content', 'equalto', 'x') | list | length }}",
        "{{ messages | groupby('content') | list | length }}",
        "{{ (messages | join('', attribute='content')) | length }}",
        "{% if messages[0] == messages[1] %}x{% endif %}",
        "{{ loop_changed }}{% for m in messages %}{{ loop.changed(m.content) }}{% endfor %}",
    ],
)
def test_a_look_is_noted(text):
    probe, other = probe_of(ROLES), probe_of(ROLES, times=2)
    renderer = Renderer(Speaking(SAID + text))  # type: ignore[arg-type]
    assert probe
    assert other
    assert looks(SAID + text) is None or (
        # what is only a copy in other signs shows in a second probe
        renderer._proved(ROLES) is None or renderer._proved(ROLES).searched is None  # type: ignore[union-attr]
    )


@pytest.mark.parametrize(
    ("text", "searched"),
    [
        ("", set()),
        ("{% if c %}{{ '' }}{% endif %}{{ ('\\n' ~ c) | trim }}", set()),
        ("{% if c is string and c is not none and c is defined %}x{% endif %}", set()),
        ("{% if '<t>' in c %}x{% endif %}", {"<t>"}),
        ("{% if c == 'yes' or c in ['no', 'word'] %}x{% endif %}", {"yes", "no", "word"}),
        ("{{ c.split('think')[-1].lstrip('\\n') }}", {"think"}),
        ("{% if c.startswith('a') %}x{% endif %}", {"a"}),
        ("{{ c.replace('\\n', ' ') }}", {"\n"}),
        ("{% if 'content' in messages[0] and messages | length > 1 %}x{% endif %}", set()),
        ("{% for m in messages[::-1] %}{{ m.role }}{% endfor %}", set()),
        ("{% set ns = namespace(t='') %}{% set ns.t = ns.t ~ c %}{{ ns.t.strip() }}", set()),
        (
            "{{ (messages | selectattr('role', 'equalto', 'user') | list | first).content }}",
            set(),
        ),
        ("{% macro f(t) %}{{ 'y' in t }}{% endmacro %}{{ f(c) }}", {"y"}),
        ("{% if add_generation_prompt %}{{ 'quick' in c }}{% endif %}", {"quick"}),
    ],
)
def test_copies_and_searches_are_no_looks(text, searched):
    assert looks(SAID + text) == searched


ALL: list[Any] = [pytest.param(t.text, id=t.name) for t in TEMPLATES if t.text]
ALL += [pytest.param(path.read_text(), id=path.stem) for path in sorted(DATA.glob("*.jinja"))]
PIECES = [
    *(
        "a",
        "Hello there.",
        "日本 é🦜",
        "x\ny",
        "\n\n",
        "  ",
        "<",
        ">",
        "[",
        "]",
        "{",
        '"',
        "'",
        "\\",
    ),
    *("<think>", "</think>", "<|im_end|>", "<|channel>", "[INST]", "think", "user", "system", "0"),
    *("/no_think", "/think", "final", "true", "None", "{{ x }}", "{% raw %}", "%s", "<tool_call>"),
]


@pytest.mark.parametrize("template", ALL)
def test_what_is_not_rendered_is_what_would_be(template):
    rng = random.Random(len(template))
    renderer = Renderer(Speaking(template))  # type: ignore[arg-type]
    for number in range(60):
        length = rng.choice([1, 2, 3, 4])
        roles = [*["system"] * (number % 2), *["user", "assistant"] * length][: length + 1]
        messages = [
            {"role": role, "content": "".join(rng.choices(PIECES, k=rng.randint(0, 5)))}
            for role in roles
        ]
        turns = [turn for turn, role in enumerate(roles) if role == "assistant"]
        fresh = Renderer(Speaking(template))  # type: ignore[arg-type]
        try:
            wanted = fresh.render_answers(messages, turns)
        except TemplateInvalid:
            with pytest.raises(TemplateInvalid):
                renderer.render_answers(messages, turns)
        else:
            assert renderer.render_answers(messages, turns) == wanted
