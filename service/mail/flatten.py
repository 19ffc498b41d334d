"""Inheritance resolved at load: a template and the layouts it extends become one tree of nodes.

Jinja runs each block as a generator of its own on every rendering. A mail's layout never changes between two
renderings, so blocks, `self.block()` and `super()` are put in place once, and static text around them is joined: one
function, few chunks, and the whole html lies before the CSS is inlined. It is then that mail/links can read it.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from jinja2 import nodes

from service.mail.links import check_links
from service.mail.sandbox import Environment, block_called, check_source
from service.mail.template import TemplateFault

N = TypeVar("N", bound=nodes.Node)

_ASSIGNS = (nodes.Assign, nodes.AssignBlock)
_MOST_NODES = 5000  # of a flattened tree; two blocks that each call the next one twice double with every step
_DEEPEST_LOOP = 8
_DEEPEST = 40  # statements inside of one another; Python takes no more than 100 indentations


def flatten(file: str, sources: Mapping[str, str], environment: Environment, *, own: str = "") -> nodes.Template:
    """The tree of `file` without extends and blocks; `html.j2` alone means `own`, the template's default language.

    Raises TemplateFault with file and line.
    """
    return _Flattener(file, sources, environment, own).run()


class _Flattener:
    def __init__(self, file: str, sources: Mapping[str, str], environment: Environment, own: str) -> None:
        self._environment, self._own = environment, own
        self._files: list[tuple[str, nodes.Template]] = []  # from the template to the outermost layout
        self._blocks: dict[str, list[tuple[str, nodes.Block]]] = {}
        self._places: dict[int, str] = {}  # expression, by identity -> the file in which it stands
        self._nodes = 0
        self._depths = [0, 0]  # statements, loops
        next_file: str | None = file
        while next_file is not None:
            tree = check_source(next_file, sources[next_file], environment)
            self._count(tree, next_file, 1)
            self._files.append((next_file, tree))
            for block in tree.find_all(nodes.Block):
                self._blocks.setdefault(block.name, []).append((next_file, block))
            next_file = self._parent(next_file, tree, sources)

    def _parent(self, file: str, tree: nodes.Template, sources: Mapping[str, str]) -> str | None:
        extends = tree.find(nodes.Extends)
        if extends is None:
            return None
        if extends not in tree.body or not isinstance(extends.template, nodes.Const):
            raise TemplateFault(file, extends.lineno, "extends names one file, as text, outside of every if and for")
        parent = str(extends.template.value)
        if parent == "html.j2" and self._own:
            parent = self._own
        if parent not in sources:
            raise TemplateFault(file, extends.lineno, f"there is no layout {parent!r}")
        if any(parent == known for known, _ in self._files):
            raise TemplateFault(file, extends.lineno, f"{parent} extends itself")
        return parent

    def run(self) -> nodes.Template:
        file, root = self._files[-1]
        # what a child sets outside of its blocks is set before the layout begins
        own = [node for _, tree in reversed(self._files[:-1]) for node in tree.body if isinstance(node, _ASSIGNS)]
        body = self._statements([*own, *root.body], file, ())
        flat = nodes.Template(body, lineno=1)
        flat.set_environment(self._environment)
        if self._environment.autoescape:
            check_links(flat, self._place)
        return flat

    def _place(self, expression: nodes.Expr) -> tuple[str, int]:
        file = self._places.get(id(expression), self._files[0][0])
        if file in self._environment.from_mjml:
            return f"{file.removesuffix('.j2')}.mjml", 1
        return file, expression.lineno

    def _count(self, node: nodes.Node, file: str, line: int) -> None:
        self._nodes += 1 + sum(1 for _ in node.find_all(nodes.Node))
        if self._nodes > _MOST_NODES:
            raise TemplateFault(file, line, f"is too large: more than {_MOST_NODES} expressions and statements in all")

    def _statements(
        self, body: Iterable[nodes.Node], file: str, inside: tuple[tuple[str, int], ...]
    ) -> list[nodes.Node]:
        made: list[nodes.Node] = []
        for node in body:
            if isinstance(node, nodes.Block):
                made += self._block(node.name, 0, file, node.lineno, inside)
            elif isinstance(node, nodes.Output):
                made += self._output(node, file, inside)
            else:
                made.append(self._inner(node, file, inside))
        return _joined(made)

    def _inner(self, node: nodes.Node, file: str, inside: tuple[tuple[str, int], ...]) -> nodes.Node:
        deeper = [1, int(isinstance(node, nodes.For))]
        self._depths = [depth + more for depth, more in zip(self._depths, deeper, strict=True)]
        if self._depths[0] > _DEEPEST or self._depths[1] > _DEEPEST_LOOP:
            raise TemplateFault(file, node.lineno, f"stands too deep: at most {_DEEPEST_LOOP} loops in one another")
        for name in ("body", "elif_", "else_"):
            held = getattr(node, name, None)
            if isinstance(held, list):
                setattr(node, name, self._statements(held, file, inside))
        self._depths = [depth - more for depth, more in zip(self._depths, deeper, strict=True)]
        self._no_calls(node, file)
        return node

    def _no_calls(self, node: nodes.Node, file: str) -> None:
        """Calls that stand elsewhere than alone in `{{ }}` would be left over."""
        fields = [value for name, value in node.iter_fields() if name not in {"body", "elif_", "else_", "nodes"}]
        for value in fields:
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, nodes.Node) and (isinstance(each, nodes.Call) or each.find(nodes.Call) is not None):
                    raise TemplateFault(file, each.lineno, "super() and self.block() stand alone in {{ }}")

    def _output(self, output: nodes.Output, file: str, inside: tuple[tuple[str, int], ...]) -> list[nodes.Node]:
        made: list[nodes.Node] = []
        for each in output.nodes:
            called = block_called(each)
            if called is None:
                if each.find(nodes.Call) is not None:
                    raise TemplateFault(file, each.lineno, "super() and self.block() stand alone in {{ }}")
                self._places[id(each)] = file
                made.append(nodes.Output([each], lineno=each.lineno))
            elif called == "super":
                if not inside:
                    raise TemplateFault(file, each.lineno, "super() stands inside of a block")
                name, level = inside[-1]
                made += self._block(name, level + 1, file, each.lineno, inside)
            else:
                made += self._block(called, 0, file, each.lineno, inside)
        return made

    def _block(
        self, name: str, level: int, file: str, line: int, inside: tuple[tuple[str, int], ...]
    ) -> list[nodes.Node]:
        found = self._blocks.get(name, [])
        if level >= len(found):
            raise TemplateFault(file, line, f"there is no {'outer ' if level else ''}block {name!r}")
        if (name, level) in inside:
            raise TemplateFault(file, line, f"the block {name!r} contains itself")
        where, block = found[level]
        if block.required:
            raise TemplateFault(self._files[0][0], 1, f"the block {name!r} of {where} must be filled")
        self._count(block, file, line)
        body = self._statements([_clone(each) for each in block.body], where, (*inside, (name, level)))
        if any(isinstance(each, _ASSIGNS) or next(each.find_all(_ASSIGNS), None) is not None for each in body):
            return [nodes.Scope(body, lineno=line)]  # what a block sets ends with it
        return body


def _clone(node: N) -> N:
    """A copy of a tree: a block may be put in place several times, and joining changes nodes."""

    def copy(value: object) -> object:
        if isinstance(value, nodes.Node):
            return _clone(value)
        return [copy(each) for each in value] if isinstance(value, list) else value

    fields = [copy(getattr(node, name)) for name in node.fields]
    return type(node)(*fields, lineno=node.lineno, environment=node.environment)


def _joined(body: list[nodes.Node]) -> list[nodes.Node]:
    """Neighbouring outputs become one, neighbouring texts one text."""
    made: list[nodes.Node] = []
    for node in body:
        if isinstance(node, nodes.Output) and made and isinstance(made[-1], nodes.Output):
            made[-1] = nodes.Output([*made[-1].nodes, *node.nodes], lineno=made[-1].lineno)
        else:
            made.append(node)
    for node in made:
        if isinstance(node, nodes.Output):
            node.nodes = _joined_texts(node.nodes)
    return made


def _joined_texts(parts: list[nodes.Expr]) -> list[nodes.Expr]:
    made: list[nodes.Expr] = []
    for part in parts:
        last = made[-1] if made else None
        if isinstance(part, nodes.TemplateData) and isinstance(last, nodes.TemplateData):
            made[-1] = nodes.TemplateData(last.data + part.data, lineno=last.lineno)
        else:
            made.append(part)
    return made
