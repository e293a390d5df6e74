"""The expression IR: eight immutable node classes over positional axes.

Every multilinear operation (matmul, elementwise product, transpose, diagonal, kron,
trace, sum, broadcast, block-diagonal) is one node, `Ein`; every nonlinear elementwise
one is `Map`; the rest is `Call`.  Nodes come from the constructors only: these simplify
a little and intern in a weak table, so that structural equality is identity.
`node.key` orders nodes by structure alone, never by when they were made.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias
from weakref import WeakValueDictionary

from peftc.expr.functions import ELEMENTWISE, LINEAR_CALLS
from peftc.expr.sizes import Size, product, show

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

Axes: TypeAlias = tuple[Size, ...]
Labels: TypeAlias = tuple[int, ...]
Key: TypeAlias = tuple[int, str, bytes]
LeafKind: TypeAlias = typing.Literal["param", "buffer", "weight", "input"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Node:
    """What all nodes have: axes, operands, and a structural sort key."""

    rank: ClassVar[int] = 0

    axes: Axes
    operands: tuple[Node, ...] = ()
    key: Key = (0, "", b"")

    def __repr__(self) -> str:
        return pretty(self) if len(self.operands) < 3 else f"<{type(self).__name__}>"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Leaf(Node):
    """A tensor that is given.

    `param` is trained and `buffer` fixed, both added by a method; `weight` is the
    base's and frozen; `input` is an activation.
    """

    rank: ClassVar[int] = 1
    name: str
    kind: LeafKind


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Literal(Node):
    """A tensor of one value.  Broadcasting is multiplication by a literal 1."""

    rank: ClassVar[int] = 6
    value: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Eye(Node):
    """The identity matrix over axes (n, n)."""

    rank: ClassVar[int] = 5


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Ein(Node):
    """A product of the operands summed over the labels that `out` lacks.

    Labels are numbered from zero in order of appearance.
    """

    rank: ClassVar[int] = 2
    labels: tuple[Labels, ...]
    out: Labels


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Add(Node):
    """A linear combination of operands of equal axes; never an Add among them."""

    rank: ClassVar[int] = 3
    coefs: tuple[float, ...]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Map(Node):
    """An elementwise function of operands of equal axes."""

    rank: ClassVar[int] = 4
    fn: str


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class View(Node):
    """The operand with axes split or merged, elements in row-major order."""

    rank: ClassVar[int] = 7


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Call(Node):
    """A function of whole tensors (functions.CALLS) with constant attributes."""

    rank: ClassVar[int] = 4
    fn: str
    attrs: tuple[float | int | str, ...]


# --- interning --------------------------------------------------------------------

_TABLE: WeakValueDictionary[tuple[Hashable, ...], Node] = WeakValueDictionary()
_LOCK = Lock()

N = typing.TypeVar("N", bound=Node)


def _intern(cls: type[N], axes: Axes, operands: tuple[Node, ...], **rest: Any) -> N:
    """The node of these fields, made if there is none."""
    identity = (cls, axes, operands, *rest.values())
    with _LOCK:
        known = _TABLE.get(identity)
        if known is None:
            key = _key(cls, axes, operands, rest)
            known = cls(axes=axes, operands=operands, key=key, **rest)
            _TABLE[identity] = known
    return typing.cast("N", known)


def _key(
    cls: type[Node], axes: Axes, operands: tuple[Node, ...], rest: Mapping[str, Any]
) -> Key:
    digest = blake2b(digest_size=16)
    digest.update(repr((cls.__name__, show(axes), *rest.values())).encode())
    for operand in operands:
        digest.update(operand.key[2])
    name = str(rest.get("name") or rest.get("fn") or "")
    return (cls.rank, name, digest.digest())


# --- constructors -----------------------------------------------------------------


def leaf(name: str, kind: LeafKind, axes: Iterable[int | str | Size]) -> Leaf:
    """A given tensor."""
    return _intern(Leaf, tuple(map(Size.of, axes)), (), name=name, kind=kind)


def literal(value: float, axes: Iterable[Size] = ()) -> Literal:
    """A tensor full of `value`."""
    # + 0.0 makes the negative zero positive: the two are one literal.
    return _intern(Literal, tuple(axes), (), value=float(value) + 0.0)


def eye(size: int | str | Size) -> Eye:
    """The identity matrix of this size."""
    axis = Size.of(size)
    return _intern(Eye, (axis, axis), ())


def ein(
    operands: Sequence[Node],
    labels: Sequence[Sequence[Hashable]],
    out: Sequence[Hashable],
) -> Node:
    """The product of `operands` summed over all labels that are not in `out`.

    Labels are any hashables, one for each axis of each operand.  Literals become a
    coefficient and, for the labels that nothing else carries, one literal of ones; of
    these, summed ones whose size is a number are counted.

    Raises:
        TypeError: if a label stands for axes of different sizes.
    """
    size = _label_sizes(operands, labels)
    coef, pairs = 1.0, []
    for operand, names in zip(operands, labels, strict=True):
        if isinstance(operand, Literal):
            coef *= operand.value
        else:
            pairs.append((operand, tuple(names)))
    carried = {label for _, names in pairs for label in names}
    free = []
    for label in (label for label in size if label not in carried):
        if label in out or size[label].number is None:
            free.append(label)
        else:
            coef *= size[label].number or 1
    axes = tuple(size[label] for label in out)
    if not pairs and set(free) <= set(out) and len(set(out)) == len(out):
        return literal(coef, axes)
    if free:
        pairs.append((literal(1, (size[label] for label in free)), tuple(free)))
    return _scaled(_product(pairs, tuple(out), axes), coef)


def _label_sizes(
    operands: Sequence[Node], labels: Sequence[Sequence[Hashable]]
) -> dict[Hashable, Size]:
    size: dict[Hashable, Size] = {}
    for operand, names in zip(operands, labels, strict=True):
        for axis, label in zip(operand.axes, names, strict=True):
            if size.setdefault(label, axis) != axis:
                raise TypeError(f"axis mismatch: {size[label]} against {axis}")
    return size


def _product(
    pairs: list[tuple[Node, tuple[Hashable, ...]]],
    out: tuple[Hashable, ...],
    axes: Axes,
) -> Node:
    pairs.sort(key=lambda pair: pair[0].key)
    number: dict[Hashable, int] = {}
    for _, names in pairs:
        for label in names:
            number.setdefault(label, len(number))
    labels = tuple(tuple(number[label] for label in names) for _, names in pairs)
    result = tuple(number[label] for label in out)
    if len(pairs) == 1 and labels[0] == result:
        return pairs[0][0]
    operands = tuple(operand for operand, _ in pairs)
    return _intern(Ein, axes, operands, labels=labels, out=result)


def _scaled(node: Node, coef: float) -> Node:
    return node if coef == 1 else add((node,), (coef,))


def add(operands: Sequence[Node], coefs: Sequence[float] | None = None) -> Node:
    """The sum of coefs[i] * operands[i]; equal operands merge, zeros vanish.

    Raises:
        TypeError: if the operands differ in their axes.
    """
    axes = operands[0].axes
    total: dict[Node, float] = {}
    for operand, coef in zip(operands, coefs or (1.0,) * len(operands), strict=True):
        if operand.axes != axes:
            raise TypeError(f"cannot add {show(operand.axes)} to {show(axes)}")
        for part, inner in _summands(operand):
            total[part] = total.get(part, 0.0) + coef * inner
    kept = sorted(((n, c) for n, c in total.items() if c), key=lambda p: p[0].key)
    if not kept:
        return literal(0, axes)
    if len(kept) == 1:
        part, coef = kept[0]
        if coef == 1:
            return part
        if isinstance(part, Literal):
            return literal(coef, axes)
    parts, values = zip(*kept, strict=True)
    return _intern(Add, axes, parts, coefs=values)


def _summands(node: Node) -> Iterable[tuple[Node, float]]:
    if isinstance(node, Add):
        return zip(node.operands, node.coefs, strict=True)
    if isinstance(node, Literal):
        return ((literal(1, node.axes), node.value),)
    return ((node, 1.0),)


def apply_map(fn: str, *operands: Node) -> Node:
    """`fn` (functions.ELEMENTWISE, or `identity`) of each element.

    Raises:
        TypeError: for an unknown function or a wrong number of operands.
    """
    if (fn not in ELEMENTWISE and fn != "identity") or len(operands) != 1:
        raise TypeError(f"no elementwise function {fn} of {len(operands)} arguments")
    (operand,) = operands
    if fn == "identity":
        return operand
    if isinstance(operand, Literal):
        try:
            return literal(ELEMENTWISE[fn](operand.value), operand.axes)
        except (ArithmeticError, ValueError):
            pass  # 1/0 or log(-1): floats of the run time have a value for it
    return _intern(Map, operand.axes, operands, fn=fn)


def view(operand: Node, axes: Iterable[Size]) -> Node:
    """`operand` with its elements, in order, under other axes.

    Raises:
        TypeError: if the number of elements differs.
    """
    axes = tuple(axes)
    if isinstance(operand, View):
        operand = operand.operands[0]
    if operand.axes == axes:
        return operand
    if product(operand.axes) != product(axes):
        raise TypeError(
            f"{show(operand.axes)} and {show(axes)} have different numbers of elements"
        )
    if isinstance(operand, Literal):
        return literal(operand.value, axes)
    return _intern(View, axes, (operand,))


def call(
    fn: str,
    operands: Sequence[Node],
    attrs: Sequence[float | int | str],
    axes: Iterable[Size],
) -> Node:
    """A function of whole tensors (functions.CALLS)."""
    first = operands[0]
    if isinstance(first, Literal) and not first.value and fn in LINEAR_CALLS:
        return literal(0, axes)
    if fn == "training" and first is operands[1]:
        return first
    return _intern(Call, tuple(axes), tuple(operands), fn=fn, attrs=tuple(attrs))


# --- traversal --------------------------------------------------------------------


def walk(*roots: Node) -> list[Node]:
    """All nodes below, operands before their users, each once."""
    order: dict[Node, None] = {}
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if node in order:
            continue
        if ready or not node.operands:
            order[node] = None
        else:
            stack.append((node, True))
            stack.extend((operand, False) for operand in reversed(node.operands))
    return list(order)


def rebuild(node: Node, operands: Sequence[Node]) -> Node:
    """The node with other operands of equal axes."""
    if isinstance(node, Ein):
        return ein(operands, node.labels, node.out)
    if isinstance(node, Add):
        return add(operands, node.coefs)
    if isinstance(node, Map):
        return apply_map(node.fn, *operands)
    if isinstance(node, View):
        return view(operands[0], node.axes)
    if isinstance(node, Call):
        return call(node.fn, operands, node.attrs, node.axes)
    return node


def replace(
    roots: Sequence[Node],
    mapping: Mapping[Node, Node],
    origins: dict[Node, Any] | None = None,
) -> list[Node]:
    """The roots with the nodes of `mapping` replaced, all at once.

    With `origins`, nodes that come out new are entered with the origin of the node they
    replace.
    """
    new = dict(mapping)
    for node in walk(*roots):
        if node in new:
            continue
        operands = [new[operand] for operand in node.operands]
        new[node] = node if _same(node, operands) else rebuild(node, operands)
        if origins is not None and node in origins:
            origins.setdefault(new[node], origins[node])
    return [new[root] for root in roots]


def _same(node: Node, operands: Sequence[Node]) -> bool:
    return all(a is b for a, b in zip(node.operands, operands, strict=True))


def depends_on(node: Node, leaves: Collection[Node]) -> bool:
    """Whether any of `leaves` (any nodes) is the node or below it."""
    return any(part in leaves for part in walk(node))


# --- printing ---------------------------------------------------------------------


def pretty(node: Node) -> str:
    """The expression on one line, for people and for tests."""
    text: dict[Node, str] = {}
    for part in walk(node):
        text[part] = _show(part, [text[operand] for operand in part.operands])
    return text[node]


def _show(node: Node, parts: list[str]) -> str:
    if isinstance(node, Leaf):
        return node.name
    if isinstance(node, Literal):
        return f"{node.value!r}{show(node.axes) if node.axes else ''}"
    if isinstance(node, Eye):
        return f"eye({node.axes[0]})"
    if isinstance(node, Ein):
        return f"ein({spec(node.labels, node.out)}; {', '.join(parts)})"
    if isinstance(node, Add):
        pairs = zip(node.coefs, parts, strict=True)
        return "(" + " + ".join(t if c == 1 else f"{c!r}*{t}" for c, t in pairs) + ")"
    if isinstance(node, View):
        return f"view({parts[0]} as {show(node.axes)})"
    if isinstance(node, Map):
        return f"{node.fn}({parts[0]})"
    assert isinstance(node, Call)
    return f"{node.fn}({', '.join([*parts, *map(repr, node.attrs)])})"


def spec(labels: Sequence[Labels], out: Labels) -> str:
    """`ab,bc->ac` for numbered labels."""
    return ",".join(map(_letters, labels)) + "->" + _letters(out)


def _letters(labels: Labels) -> str:
    return "".join(chr(ord("a") + label) for label in labels)
