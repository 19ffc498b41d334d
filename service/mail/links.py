"""Where data may stand in the tags of html: between quotation marks, and in a link only through the filter `url`.

Autoescape keeps data from ending a quoted value. It keeps no `javascript:` out of a href, and nothing at all out of
`<a {{ x }}>` or `<a title={{ x }}>`, where a space begins another attribute. So the flattened tree is read as html at
load: static text moves a state forward (mail/html_state), each branch of an `if` and each turn of a `for` from every
state in which it can begin, and an expression is refused where it must not stand.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from jinja2 import nodes

from service.mail.fault import TemplateFault
from service.mail.html_state import In, State, advance
from service.mail.sandbox import dotted

Place = Callable[[nodes.Expr], tuple[str, int]]  # file and line of an expression

URL_ATTRIBUTES = {
    "action", "background", "cite", "codebase", "data", "formaction", "href", "icon", "longdesc", "lowsrc", "manifest",
    "ping", "poster", "profile", "src", "srcset", "usemap", "xlink:href",
}  # fmt: skip
_TANGLED = "branches and loops leave the html in too many states: close each tag where it was opened"
_MOST_READ = 4 * 1024 * 1024  # characters; each turn of a loop that changes the state reads its text again
_MOST_STATES = 32  # in which one place can be; html has one, or one for each branch
_AT_ONCE = re.compile(r"(?:https|mailto|tel):", re.I)  # what a text of the author's own may begin with


_START = frozenset({State()})
_States = frozenset[State]


def check_links(tree: nodes.Template, place: Place) -> None:
    """Raises TemplateFault for an expression that stands where data may not."""
    _Checker(place).run(tree.body, _START)


class _Checker:
    def __init__(self, place: Place) -> None:
        self._place = place
        self._read = 0  # characters, in each state

    def run(self, body: Iterable[nodes.Node], states: _States) -> _States:
        for node in body:
            states = self._node(node, states)
            if len(states) > _MOST_STATES:
                raise TemplateFault(*self._at(node), _TANGLED)
        return states

    def _count(self, characters: int, node: nodes.Node) -> None:
        self._read += 100 + characters
        if self._read > _MOST_READ:
            raise TemplateFault(*self._at(node), _TANGLED)

    def _at(self, node: nodes.Node) -> tuple[str, int]:
        inner = next(iter(node.find_all(nodes.Expr)), None)
        return self._place(inner) if inner is not None else ("html", node.lineno)

    def _node(self, node: nodes.Node, states: _States) -> _States:
        if isinstance(node, nodes.Output):
            for each in node.nodes:
                if isinstance(each, nodes.TemplateData):
                    self._count(len(each.data) * len(states), node)
                    states = frozenset(advance(state, each.data) for state in states)
                else:
                    states = frozenset(self._expression(each, state) for state in states)
        elif isinstance(node, nodes.If):
            branches = [node.body, *(each.body for each in node.elif_), node.else_]
            states = frozenset[State]().union(*(self.run(branch, states) for branch in branches))
        elif isinstance(node, nodes.For):
            states = self._loop(node, states)
        elif isinstance(node, nodes.AssignBlock):
            self.run(node.body, _START)  # a text of its own; where it is put, it is an expression
        elif isinstance(node, nodes.With | nodes.FilterBlock | nodes.Scope):
            states = self.run(node.body, states)
        return states

    def _loop(self, node: nodes.For, states: _States) -> _States:
        none = self.run(node.else_, states) if node.else_ else states
        turns = states
        while not (after := self.run(node.body, turns)) <= turns:
            turns |= after
            if len(turns) > _MOST_STATES:
                raise TemplateFault(*self._at(node), _TANGLED)
        return none | turns

    def _expression(self, node: nodes.Expr, state: State) -> State:
        file, line = self._place(node)
        if state.where is In.TEXT or _is_static(node):
            return state
        if state.where is not In.QUOTED:
            what = "an expression in a tag stands between quotation marks, as the value of an attribute"
            raise TemplateFault(file, line, f"{_named(node)}{what}")
        if state.attribute == "srcdoc" or state.attribute.startswith("on"):
            raise TemplateFault(file, line, f"{_named(node)}`{state.attribute}` is code, and holds no expression")
        if state.attribute in URL_ATTRIBUTES and not state.decided and not _is_url(node):
            what = f"`{state.attribute}` begins with it, so write {{{{ ...|url }}}}: it could be `javascript:`"
            raise TemplateFault(file, line, f"{_named(node)}{what}")
        return replace(state, decided=True)


def _named(node: nodes.Expr) -> str:
    name = dotted(node.node if isinstance(node, nodes.Filter) else node)
    return f"{name[:80]}: " if name else ""


def _is_static(node: nodes.Node | None) -> bool:
    """Texts of the author's own, of which data only picks one."""
    if isinstance(node, nodes.CondExpr):
        return _is_static(node.expr1) and (node.expr2 is None or _is_static(node.expr2))
    return isinstance(node, nodes.Const)


def _is_url(node: nodes.Node | None) -> bool:
    """Whether what it comes to has been through `url`, or begins with a harmless scheme that the author wrote."""
    if isinstance(node, nodes.Filter):
        return node.name == "url" or (node.name in {"e", "escape"} and _is_url(node.node))
    if isinstance(node, nodes.CondExpr):
        return _is_url(node.expr1) and (node.expr2 is None or _is_url(node.expr2))
    if isinstance(node, nodes.Concat):
        return _is_url(node.nodes[0])
    if isinstance(node, nodes.Add):
        return _is_url(node.left)
    return isinstance(node, nodes.Const) and _AT_ONCE.match(str(node.value)) is not None
