"""Comments: which node each belongs to.

In: items without comments, and the comments of their text.  Out: the same items, every
comment on one of them or left over for the end of the file.  A comment behind an item,
clause or statement on its line trails it; any other leads the next one, or closes its
block; one inside an expression or a header leads the item or statement around it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from peftc.syntax import ast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftc.syntax.build import Lexeme

N = TypeVar("N", bound=ast.Commented)
FILE = 0


@dataclass
class Comments:
    """Comments by what they belong to: `id` of a node, or `FILE`."""

    braces: Sequence[int]
    leading: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    trailing: dict[int, str] = field(default_factory=dict)
    closing: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))

    def lead(self, node: ast.Node, comment: Lexeme) -> None:
        """Put a comment on the lines before a node."""
        self.leading[id(node)].append(comment_text(comment))

    def brace(self, clause: ast.Clause) -> int:
        """Where the header of a clause ends."""
        return self.braces[bisect_right(self.braces, clause.span.start)]

    def between(self, comment: Lexeme, nodes: Sequence[N], block: int) -> N | None:
        """Place a comment between the nodes of a block, or give the one around it."""
        index = bisect_right([node.span.start for node in nodes], comment.start)
        before = nodes[index - 1] if index else None
        if before is not None and comment.start < before.span.end:
            return before
        if before is not None and _same_line(before, comment):
            self.trailing[id(before)] = comment_text(comment)
        elif index < len(nodes):
            self.lead(nodes[index], comment)
        else:
            self.closing[block].append(comment_text(comment))
        return None

    def in_file(self, comment: Lexeme, items: Sequence[ast.Item]) -> None:
        """Place a comment of the file."""
        item = self.between(comment, items, FILE)
        if isinstance(item, ast.Method):
            self.in_method(comment, item)
        elif item is not None:
            self.lead(item, comment)

    def in_method(self, comment: Lexeme, method: ast.Method) -> None:
        """Place a comment inside a method; one in its header leads it."""
        if comment.start < self.brace(method.clauses[0]):
            self.lead(method, comment)
        elif clause := self.between(comment, method.clauses, id(method)):
            self.in_clause(comment, clause)

    def in_clause(self, comment: Lexeme, clause: ast.Clause) -> None:
        """Place a comment inside a clause; one in its header leads it."""
        if comment.start < self.brace(clause):
            self.lead(clause, comment)
        elif statement := self.between(comment, clause.body, id(clause)):
            self.lead(statement, comment)

    def on(self, node: N) -> N:
        """The node with its own comments."""
        key = id(node)
        if key not in self.leading and key not in self.trailing:
            return node
        leading = tuple(self.leading.get(key, ()))
        return replace(node, leading=leading, trailing=self.trailing.get(key, ""))

    def on_clause(self, clause: ast.Clause) -> ast.Clause:
        """The clause with all comments in it."""
        body = tuple(map(self.on, clause.body))
        closing = tuple(self.closing.get(id(clause), ()))
        return replace(self.on(clause), body=body, closing=closing)

    def on_item(self, item: ast.Item) -> ast.Item:
        """The item with all comments in it."""
        if not isinstance(item, ast.Method):
            return self.on(item)
        return replace(self.on(item), clauses=tuple(map(self.on_clause, item.clauses)))


def comment_text(token: str) -> str:
    """What a comment says: without `#`, one blank after it, and blanks at the end."""
    return token[1:].removeprefix(" ").rstrip()


def _same_line(node: ast.Node, comment: Lexeme) -> bool:
    return "\n" not in comment.source.text[node.span.end : comment.start]


def attach(
    items: Sequence[ast.Item], comments: Sequence[Lexeme], braces: Sequence[int]
) -> tuple[tuple[ast.Item, ...], tuple[str, ...]]:
    """The items with their comments, and the comments after the last.

    `braces` are the offsets of all `{` of the text, in order.
    """
    found = Comments(braces)
    for comment in comments:
        found.in_file(comment, items)
    return tuple(map(found.on_item, items)), tuple(found.closing[FILE])


def without_comments(method: ast.Method) -> ast.Method:
    """The method with no comment in it: what canonical texts are made from."""
    clauses = tuple(
        replace(_bare(clause), body=tuple(map(_bare, clause.body)), closing=())
        for clause in method.clauses
    )
    return replace(_bare(method), clauses=clauses)


def _bare(node: N) -> N:
    return replace(node, leading=(), trailing="")
