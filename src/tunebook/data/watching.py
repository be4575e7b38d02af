"""Does a template look at the words it writes? A probe is rendered, and every look at its words noted.

A template that copies words, and looks at no more than whether some constant stands in them, writes
any words of the same roles in the same way. This module knows no spans and no tokens.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tunebook.data.sandbox import Program
from tunebook.errors import TemplateInvalid

if TYPE_CHECKING:
    from jinja2 import nodes

# A probe's words are private-use characters only, and keep them wherever they are copied to.
_HELD = re.compile("[\ue000-\uf8ff]")
_WHOLE = re.compile("\ue0a7[\ue100-\uf8ff]\ue0b6")  # one content of `shapes.probe_of`
_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}
# What they answer depends on the kind of a value alone.
_KINDS = {"string", "defined", "undefined", "none", "mapping", "sequence", "iterable", "boolean"}
_KINDS |= {"number", "integer", "float", "true", "false", "callable"}
_COPIES = {"string", "default", "d"}
_OF_LISTS = {"length", "count", "first", "last", "list", "reverse", "items"}
_BY_CONSTANT = {"startswith", "endswith", "split", "rsplit", "partition", "rpartition", "replace"}
_ENDS = {"strip", "lstrip", "rstrip"}
_JINJAS = {"_loop_vars", "_block_vars"}  # what Jinja itself gives to calls
_OF_DICTS = {"items", "keys", "values", "get"}


class Watch(Program):
    """A template that notes how it looks at the words of a probe while it renders it.

    Attributes:
        looked: it looked in a way that can tell some words from others.
        constants: texts that it searched for in whole contents: words without them are like the
            probe's, provided that they are not empty and have no blanks at their ends.
    """

    def __init__(self, text: str) -> None:
        self.looked = False
        self.constants: set[str] = set()
        super().__init__(text)

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items; one sign of a text after the other is a look."""
        self._look(isinstance(items, str) and held(items))
        return super().counted(items)

    def adapt(self, environment: Any, tree: nodes.Template) -> nodes.Template:
        """Note what a template can do with a value: compare, filter, test, cut, call."""
        for name, filter in list(environment.filters.items()):
            environment.filters[name] = self._filtered(name, filter)
        for name, test in list(environment.tests.items()):
            environment.tests[name] = self._tested(name, test)
        environment.getattr = self._got(environment.getattr)
        environment.getitem = self._got(environment.getitem)
        environment.call = self._called(environment.call)
        environment.call_binop = self._computed(environment.call_binop)
        environment.intercepted_binops = environment.intercepted_binops | {"%"}
        environment.globals["__tunebook_compared"] = self._compared
        environment.globals["__tunebook_cut"] = self._cut
        environment.globals["__tunebook_parted"] = self._parted
        return _rewritten(tree)

    def _look(self, really: bool) -> None:
        self.looked = self.looked or really

    def _search(self, words: Any, constant: Any) -> None:
        """A whole content is searched for a constant, or compared with it."""
        for text in constant if isinstance(constant, list | tuple) else [constant]:
            if isinstance(text, str) and _WHOLE.fullmatch(words) and not held(text):
                self.constants.add(text)
            else:
                self._look(isinstance(text, str) or held(text))

    def _compare(self, left: Any, name: str, right: Any) -> None:
        if not (held(left) or held(right)):
            return
        if name in ("in", "notin") and isinstance(right, dict):
            self._look(held(left) or held(list(right)))  # keys are no words
        elif name in ("eq", "ne", "in", "notin") and isinstance(left, str) and held(left):
            self._search(left, right)
            self._look(name in ("in", "notin") and isinstance(right, str))
        elif name in ("eq", "ne", "in", "notin") and isinstance(right, str):
            self._search(right, left)
        else:
            self._look(True)

    def _compared(self, left: Any, *rest: Any) -> bool:
        for name, right in zip(rest[::2], rest[1::2], strict=True):
            self._compare(left, name, right)
            if not _COMPARED[name](left, right):
                return False
            left = right
        return True

    def _cut(self, value: Any) -> Any:
        """A value of which a slice is taken."""
        self._look(isinstance(value, str) and held(value))
        return value

    def _parted(self, items: Iterable[Any]) -> Iterator[Any]:
        """Items each of which is taken apart."""
        return (self._cut(item) for item in items)

    def _filtered(self, name: str, filter: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(filter)
        def watched(*args: Any, **keywords: Any) -> Any:
            given = [*args, *keywords.values()]
            value = next((item for item in given if held(item)), None)
            others = [item for item in given if item is not value]
            if isinstance(value, str):
                copies = name in _COPIES or (name == "trim" and len(given) == 1)
                self._look(not copies or held(others))
            elif value is not None and name in ("selectattr", "rejectattr"):
                self._look("role" not in others or held(others))
            elif value is not None and name == "join":
                self._look(len(given) > 3 or held(others))
            elif value is not None:
                self._look(name not in _OF_LISTS or held(others))
            return self._unmarked(filter(*args, **keywords))

        return watched

    def _tested(self, name: str, test: Callable[..., Any]) -> Callable[..., Any]:
        same = {"equalto": "eq", "==": "eq", "eq": "eq", "!=": "ne", "ne": "ne", "in": "in"}

        @functools.wraps(test)
        def watched(*args: Any, **keywords: Any) -> Any:
            if name in same and len(args) == 2:
                self._compare(args[0], same[name], args[1])
            else:
                self._look(name not in _KINDS and held([*args, *keywords.values()]))
            return test(*args, **keywords)

        return watched

    def _got(self, get: Callable[..., Any]) -> Callable[..., Any]:
        def watched(value: Any, key: Any) -> Any:
            self._look(held(key))
            if isinstance(value, str) and held(value):
                self._look(key not in _BY_CONSTANT | _ENDS)
            elif isinstance(value, dict):
                self._look(held(list(value)))  # words that are keys
            return get(value, key)

        return watched

    def _called(self, call: Callable[..., Any]) -> Callable[..., Any]:
        from jinja2.runtime import Macro
        from jinja2.utils import Namespace

        def watched(context: Any, function: Any, *args: Any, **keywords: Any) -> Any:
            owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
            given = [*args, *(v for k, v in keywords.items() if k not in _JINJAS)]
            ours = owner is self or isinstance(function, Macro)
            made = isinstance(function, type) and issubclass(function, Namespace)
            if isinstance(owner, str) and held(owner):
                self._look(held(given))
                if name in _BY_CONSTANT and given and given[0]:
                    self._search(owner, given[0])
                else:
                    self._look(name not in _ENDS or any(str(item).strip() for item in given))
            elif held(owner):
                self._look(name not in _OF_DICTS or held(given))
            elif not ours and not made:
                self._look(held(given))
            self._look(name == "strftime_now")  # another day, another text
            return self._unmarked(call(context, function, *args, **keywords))

        return watched

    def _computed(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        def watched(context: Any, operator: str, left: Any, right: Any) -> Any:
            self._look(held([left, right]))
            return compute(context, operator, left, right)

        return watched

    def _unmarked(self, value: Any) -> Any:
        """The value; safe markup would escape the words that it is joined with."""
        self._look(hasattr(value, "__html__"))
        return value


def held(value: Any) -> bool:
    """Whether a probe's words are in a value, or somewhere inside it."""
    if isinstance(value, str):
        return _HELD.search(value) is not None
    if isinstance(value, dict):
        return any(held(key) or held(item) for key, item in value.items())
    return isinstance(value, list | tuple | set) and any(held(item) for item in value)


def looked_for(
    text: str, probe: list[dict[str, Any]], variables: dict[str, Any], prompts: Iterable[int] = ()
) -> frozenset[str] | None:
    """The constants that a template searches a probe's words for; None if it looks closer.

    Args:
        text: the template.
        probe: messages of `shapes.probe_of`.
        variables: as the conversations are rendered with.
        prompts: numbers of turns for which the model is asked with what stands before them.
    """
    watch = _watch(text)
    watch.looked, watch.constants = False, set()
    try:
        watch.render(probe, variables)
        for turn in prompts:
            watch.render(probe[:turn], variables, generation_prompt=True)
    except TemplateInvalid:
        return None
    return None if watch.looked else frozenset(watch.constants - {""})


@lru_cache(maxsize=16)
def _watch(text: str) -> Watch:
    return Watch(text)


def _rewritten(tree: nodes.Template) -> nodes.Template:
    """The tree with comparisons, slices and unpacking, which no environment sees, as calls."""
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    def called(name: str, values: list[Any], line: int) -> nodes.Call:
        return nodes.Call(nodes.Name(name, "load"), values, [], None, None, lineno=line)

    class Rewriter(NodeTransformer):
        def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
            self.generic_visit(node)
            values = [node.expr]
            for operand in node.ops:
                values += [nodes.Const(operand.op), operand.expr]
            return called("__tunebook_compared", values, node.lineno)

        def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
            self.generic_visit(node)
            if isinstance(node.arg, nodes.Slice):
                node.node = called("__tunebook_cut", [node.node], node.lineno)
            return node

        def visit_For(self, node: nodes.For) -> nodes.Node:
            self.generic_visit(node)
            if isinstance(node.target, nodes.Tuple):
                node.iter = called("__tunebook_parted", [node.iter], node.lineno)
            return node

        def visit_Assign(self, node: nodes.Assign) -> nodes.Node:
            self.generic_visit(node)
            if isinstance(node.target, nodes.Tuple):
                node.node = called("__tunebook_cut", [node.node], node.lineno)
            return node

    rewriter: Any = Rewriter()
    changed: nodes.Template = rewriter.visit(tree)
    return changed
