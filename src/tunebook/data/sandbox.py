"""Chat templates as programs that strangers wrote: compiled in a sandbox, with bounded work.

This module runs Jinja over messages; what the text means, and where answers lie, others know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any

from tunebook.errors import TemplateInvalid

if TYPE_CHECKING:
    from jinja2 import Template, nodes

_numbers = count()
_STEPS = 20_000_000
_LONGEST = 100_000_000
_REASONING = ("reasoning_content", "reasoning", "thinking")
_THOUGHTS = frozenset(_REASONING)


class _TooMuch(Exception):
    """The template has used up its steps, or would make a huge text."""


class Program:
    """A template, compiled in transformers' immutable sandbox, whose loops and calls are counted.

    `marks` are the texts, such as `</think>`, that it could look for in what is said. Blanks and
    single words, which are names of roles and keys, are left out.

    Args:
        text: Jinja with transformers' extensions, `{% generation %}` among them.

    Raises:
        TemplateInvalid: naming the line that is not Jinja.
    """

    def __init__(self, text: str) -> None:
        self._left = 0
        self.marks: tuple[str, ...] = ()
        self._template = self._compile(text)

    def render(
        self,
        messages: list[dict[str, Any]],
        variables: dict[str, Any],
        *,
        generation_prompt: bool = False,
        track: bool = False,
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text, and with `track` the places of its `{% generation %}` blocks.

        Raises:
            TemplateInvalid: what the template raised, that it reached for something outside of the
                sandbox, or that it never came to an end.
        """
        from jinja2.exceptions import SecurityError

        self._left = _STEPS
        places: list[tuple[int, int]] = []
        try:
            given = {
                "tools": None,
                "documents": None,
                **variables,
                "messages": [_seen(message) for message in messages],
                "add_generation_prompt": generation_prompt,
            }
            if not track:
                return self._template.render(given), places
            blocks: list[str] = []
            environment: Any = self._template.environment
            with environment.activate_tracker(blocks, places):
                for block in self._template.generate(given):
                    blocks.append(block)
            return "".join(blocks), places
        except SecurityError as error:
            raise TemplateInvalid(
                "The chat template reaches for something outside of its sandbox.",
                f"{error}",
                "do not use this template; set `model.chat_template` to a named one.",
            ) from error
        except _TooMuch as error:
            raise TemplateInvalid(
                "The chat template does too much.",
                f"{error}",
                "set `model.chat_template` to a named template.",
            ) from error
        except Exception as error:  # a template is a program: it may raise anything
            raise TemplateInvalid(
                "The chat template refuses a conversation.",
                f"{error or type(error).__name__} (roles: {_roles(messages)}).",
                "mend the conversation, or set `model.chat_template` to one that allows it.",
            ) from error

    def _compile(self, text: str) -> Template:
        from jinja2 import TemplateSyntaxError, nodes
        from transformers.utils.chat_template_utils import _compile_jinja_template

        try:
            # The environment of a text that nobody else renders: it is changed below.
            environment: Any = _compile_jinja_template(
                f"{{# counted {next(_numbers)} #}}"
            ).environment
            tree: nodes.Template = environment.parse(text)
        except TemplateSyntaxError as error:
            raise TemplateInvalid(
                "The chat template is not valid Jinja.",
                f"line {error.lineno}: {error.message}.",
                "mend that line, or choose a named template such as `chatml`.",
            ) from None
        self.marks = _marks(tree)
        environment = _counting(environment, self)
        tree = self.adapt(environment, tree)
        for loop in tree.find_all(nodes.For):
            bounded = nodes.Name("__tunebook_counted", "load", lineno=loop.lineno)
            loop.iter = nodes.Call(bounded, [loop.iter], [], None, None, lineno=loop.lineno)
        tree.set_environment(environment)
        return environment.from_string(tree, globals={"__tunebook_counted": self.counted})  # type: ignore[no-any-return]

    def adapt(self, environment: Any, tree: nodes.Template) -> nodes.Template:
        """The tree as it is compiled; the environment is this template's own."""
        return tree

    def step(self) -> None:
        """Use up one step."""
        self._left -= 1
        if self._left < 0:
            raise _TooMuch(f"it took more than {_STEPS:,} loop steps and calls for one text.")

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, each of which costs a step."""
        for item in items:
            self.step()
            yield item


@lru_cache(maxsize=64)
def program(text: str) -> Program:
    """The compiled template of a text; the same text is compiled once.

    Raises:
        TemplateInvalid: naming the line that is not Jinja.
    """
    return Program(text)


def _counting(environment: Any, owner: Program) -> Any:
    """The environment of one template, which asks `owner` before calls and multiplications."""
    call, binop = environment.call, environment.call_binop

    def counted_call(*args: Any, **keywords: Any) -> Any:
        owner.step()
        return call(*args, **keywords)

    def checked_binop(context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(x) for x in (left, right) if isinstance(x, str | list | tuple)]
        times = [x for x in (left, right) if isinstance(x, int)]
        if operator == "*" and sizes and times and sizes[0] * times[0] > _LONGEST:
            raise _TooMuch(f"it repeats a text {times[0]:,} times.")
        if operator == "**":
            raise _TooMuch("it computes powers, which no chat needs.")
        return binop(context, operator, left, right)

    environment.intercepted_binops = frozenset(["*", "**"])
    environment.call, environment.call_binop = counted_call, checked_binop
    return environment


def _marks(tree: nodes.Template) -> tuple[str, ...]:
    """The texts in a template's expressions, but for those that are only written out."""
    from jinja2 import nodes

    captured = [
        out for block in tree.find_all(nodes.AssignBlock) for out in block.find_all(nodes.Output)
    ]
    kept_outputs = {id(output) for output in captured}
    written = {
        id(const)
        for output in tree.find_all(nodes.Output)
        if id(output) not in kept_outputs
        for part in output.nodes
        for const in _written(part)
    }
    consts = (const for const in tree.find_all(nodes.Const) if id(const) not in written)
    texts = {const.value for const in consts if isinstance(const.value, str)}
    return tuple(sorted(text for text in texts if text.strip() and not text.isidentifier()))


def _written(part: nodes.Expr) -> Iterator[nodes.Expr]:
    """The expressions of which an output is put together."""
    from jinja2 import nodes

    if isinstance(part, nodes.Add):
        sides: list[nodes.Expr | None] = [part.left, part.right]
    elif isinstance(part, nodes.Concat):
        sides = list(part.nodes)
    elif isinstance(part, nodes.CondExpr):
        sides = [part.expr1, part.expr2]
    elif isinstance(part, nodes.Filter) and part.name == "join":
        sides = [part.node, *part.args]
    else:
        yield part
        return
    for side in sides:
        if side is not None:
            yield from _written(side)


def _seen(message: dict[str, Any]) -> dict[str, Any]:
    """The message as the template sees it: plain data, thoughts under the names templates read."""
    seen = {key: value if type(value) is str else plain(value) for key, value in message.items()}
    if _THOUGHTS.isdisjoint(seen):
        return seen
    thought = next((seen[name] for name in _REASONING if seen.get(name) is not None), None)
    if thought is None:
        return seen
    return {"thinking": thought, **seen, "reasoning_content": thought}


def plain(value: Any) -> Any:
    """The value in JSON types only: the methods of other objects could lead out of the sandbox."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str.__str__(value) if isinstance(value, str) else f"<{type(value).__name__}>"


def _roles(messages: list[dict[str, Any]]) -> str:
    return ", ".join(str(message.get("role")) for message in messages)
