"""What one rendering may cost, wherever the cost arises: between two chunks too.

A chunk that comes out of a template is counted where it comes out (mail/render). What comes out of nothing is counted
here: turns of loops, texts that are joined, replaced or kept by `{% set %}`, lists that hold one another. The tree of a
template is rewritten at load so that each of these asks the meter of the rendering first; a size that can be known
before is refused before the memory is taken.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

from jinja2 import Environment, Undefined, nodes, pass_context
from jinja2.runtime import Context, markup_join, str_join
from jinja2.visitor import NodeTransformer
from markupsafe import escape

from service.mail.meter import METER, Meter, TooMuch

_MOST_DECIMALS = 9


# --- the tree ---------------------------------------------------------------------------------------------------------


class _Bounder(NodeTransformer):
    """Puts the filters below into a tree."""

    def __init__(self) -> None:
        self._kept = 0  # how many blocks that keep their text back are around

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        size = _static(node) if self._kept else 0
        node.iter = _filter(node.iter, "_each", nodes.Const(size))
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        return self._keeping(node)

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> nodes.Node:
        return self._keeping(node)

    def _keeping(self, node: nodes.Node) -> nodes.Node:
        self._kept += 1
        self.generic_visit(node)
        self._kept -= 1
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:
        self.generic_visit(node)
        if self._kept:
            parts: list[nodes.Expr] = node.nodes
            node.nodes = [each if isinstance(each, nodes.TemplateData) else _filter(each, "_kept") for each in parts]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "_concat")

    def visit_List(self, node: nodes.List) -> nodes.Expr:
        return self._weighed(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Expr:
        return self._weighed(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        return self._weighed(node) if node.ctx == "load" else node  # else names that a loop or a set fills

    def _weighed(self, node: nodes.Literal) -> nodes.Expr:
        self.generic_visit(node)
        constant = all(isinstance(each, nodes.Literal | nodes.Pair) for each in node.find_all(nodes.Node))
        return node if constant else _filter(node, "_weighed")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        self.generic_visit(node)
        node.expr = _filter(node.expr, "_ticked")
        return node

    def visit_Slice(self, node: nodes.Slice) -> nodes.Slice:
        self.generic_visit(node)
        node.start = _filter(node.start or nodes.Const(None, lineno=node.lineno), "_ticked")
        return node


def bound(tree: nodes.Template, within: Environment) -> nodes.Template:
    """The same tree, asking the meter. Changes it in place."""
    _Bounder().visit(tree)
    tree.set_environment(within)
    return tree


def _filter(node: Any, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)


def _static(node: nodes.For) -> int:
    return sum(len(each.data) for each in node.find_all(nodes.TemplateData))


# --- the filters that the tree asks for -------------------------------------------------------------------------------


class _Stream:
    """What a loop goes through, counted turn by turn."""

    def __init__(self, values: Any, meter: Meter, size: int) -> None:
        self._values, self._meter, self._size = values, meter, size

    def __iter__(self) -> Iterator[Any]:
        tick, keep, size = self._meter.tick, self._meter.keep, self._size
        for value in self._values:
            tick()
            if size:
                keep(size)
            yield value


class _Turns(_Stream):
    """The same with the length that `loop.last` and `loop.length` ask for."""

    def __len__(self) -> int:
        return len(self._values)


def _turns(values: Any, meter: Meter, size: int = 0) -> _Stream:
    return (_Turns if isinstance(values, Sized) else _Stream)(values, meter, size)


@pass_context
def _each(context: Context, value: Any, size: int) -> Iterable[Any]:
    return _turns(value, context[METER], size)


@pass_context
def _concat(context: Context, parts: list[Any]) -> str:
    meter: Meter = context[METER]
    meter.fits(sum(map(_length, parts)))
    return (markup_join if context.eval_ctx.autoescape else str_join)(parts)


@pass_context
def _weighed(context: Context, value: Any) -> Any:
    context[METER].weigh(value)
    return value


@pass_context
def _ticked(context: Context, value: Any) -> Any:
    context[METER].tick()
    return value


@pass_context
def _kept(context: Context, value: Any) -> Any:
    context[METER].keep(_length(value))
    return value


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str) else 1


INNER: Mapping[str, Callable[..., Any]] = {
    "_each": _each,
    "_concat": _concat,
    "_weighed": _weighed,
    "_ticked": _ticked,
    "_kept": _kept,
}


# --- Jinja's own filters ----------------------------------------------------------------------------------------------


def bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja that asks the meter before it works, and whose result is weighed."""
    before = _BEFORE.get(name)
    wants = getattr(function, "jinja_pass_arg", None)

    @pass_context
    def apply(context: Context, value: Any, *arguments: Any, **named: Any) -> Any:
        meter: Meter = context[METER]
        meter.tick()
        if before is not None:
            value = before(meter, value, *arguments, **named)
        result = function(*_first(wants, context), value, *arguments, **named)
        if isinstance(result, str):
            meter.fits(len(result))
        elif isinstance(result, list | tuple):
            meter.weigh(result)
        return result

    return apply


def bounded_test(function: Callable[..., Any]) -> Callable[..., Any]:
    """A test that ticks: `in` looks through a whole list."""
    wants = getattr(function, "jinja_pass_arg", None)

    @pass_context
    def apply(context: Context, *arguments: Any, **named: Any) -> Any:
        context[METER].tick()
        return function(*_first(wants, context), *arguments, **named)

    return apply


def _first(wants: Any, context: Context) -> tuple[Any, ...]:
    if wants is None:
        return ()
    return ({"context": context, "eval_context": context.eval_ctx, "environment": context.environment}[wants.name],)


def _before_join(meter: Meter, value: Any, d: Any = "", attribute: Any = None) -> list[Any]:
    values = list(value)  # of an undefined variable: raises UndefinedError with its name
    meter.weigh(values)
    meter.fits(len(values) * _length(d) + sum(map(_length, values)))
    return values


def _before_replace(meter: Meter, value: Any, old: Any = "", new: Any = "", count: Any = None) -> Any:
    marked = any(hasattr(each, "__html__") for each in (value, old, new))
    text, wanted, put = ((escape if marked else str)(each) for each in (value, old, new))
    times = text.count(wanted)
    meter.fits(len(text) + (min(times, count) if isinstance(count, int) and count >= 0 else times) * len(put))
    return value


def _before_round(_: Meter, value: Any, precision: Any = 0, method: Any = "common") -> Any:
    if type(precision) is not int or not 0 <= precision <= _MOST_DECIMALS:  # 10 ** precision is computed
        raise TooMuch(f"round takes 0 to {_MOST_DECIMALS} decimals")
    return value


def _before_truncate(
    _: Meter, value: Any, length: Any = 255, killwords: Any = False, end: Any = "...", leeway: Any = None
) -> Any:
    if not isinstance(end, str) or type(length) is not int or length < len(end) or not _is_leeway(leeway):
        raise TooMuch("truncate takes whole numbers, and a length that leaves room for its end")
    return value


def _is_leeway(leeway: Any) -> bool:
    return leeway is None or (type(leeway) is int and leeway >= 0)


def _before_items(_: Meter, value: Any, *__: Any, **___: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # raises UndefinedError with its name
    if not isinstance(value, dict):
        raise TooMuch("dictsort takes a table")
    return value


def _before_select(meter: Meter, value: Any, *_: Any, **__: Any) -> Any:
    if isinstance(value, Undefined) or not value:
        return value
    return _turns(value, meter)


_BEFORE: Mapping[str, Callable[..., Any]] = {
    "join": _before_join,
    "replace": _before_replace,
    "round": _before_round,
    "truncate": _before_truncate,
    "dictsort": _before_items,
    "select": _before_select,
    "reject": _before_select,
    "selectattr": _before_select,
    "rejectattr": _before_select,
}
