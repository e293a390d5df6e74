"""What every linear of a graph is for, and where in the layers it is.

In: a `Reading`.  Out: `Roles`: the uses of linears in their roles, the sublayer edges,
the place of every node inside a block, and what could not be told, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from peftc.sites import ops
from peftc.sites.feedforward import FeedForward, expert_blocks, plain_block
from peftc.sites.heads import seen_heads
from peftc.sites.positions import is_computed, turned
from peftc.sites.residual import parts
from peftc.view import Unresolved

if TYPE_CHECKING:
    from torch import fx

    from peftc.sites.anchors import PositionRead
    from peftc.sites.attention import Attention
    from peftc.sites.heads import Heads
    from peftc.sites.linears import Linear
    from peftc.sites.reading import Reading
    from peftc.sites.residual import Addition, Branch
    from peftc.sites.streams import Stack, Stream

_CHOICES = ops.CHOICES | {"max"}
_EXPERTS = ("experts.up", "experts.gate", "experts.down")


@dataclass(frozen=True)
class Place:
    """Where in the model: nowhere in a block, or a layer of a stack."""

    layer: int | None = None
    stack: Stack = ""
    cross: bool = False
    in_block: bool = False

    def __str__(self) -> str:
        """As people write it: `dec.layers.0.cross`."""
        layer = "" if self.layer is None else f"layers.{self.layer}"
        parts = (self.stack, layer, "cross" if self.cross else "")
        return ".".join(filter(None, parts)) or "the model"


@dataclass(frozen=True)
class Use:
    """One use of a linear in one role.

    In `values` only the channels of the role are left; empty if the role has all.
    """

    linear: Linear
    role: str
    place: Place
    values: tuple[fx.Node, ...] = ()


@dataclass(frozen=True)
class Edge:
    """The output of a sublayer (`attn`, `ffn`) or of a layer (`block`)."""

    role: str
    h: fx.Node
    reader: fx.Node | None
    source: fx.Node
    """The last product that `h` comes from."""
    place: Place
    u: fx.Node | None = None
    norm: fx.Node | None = None


@dataclass(frozen=True)
class Core:
    """An attention between its linears: `owner` is the one that reads it."""

    attention: Attention
    heads: Heads
    owner: Linear
    place: Place
    u: fx.Node | None = None
    turned: tuple[PositionRead, ...] = ()


@dataclass
class Roles:
    """What was told; filled by `assign`."""

    uses: list[Use] = field(default_factory=list)
    cores: list[Core] = field(default_factory=list)
    partly: set[fx.Node] = field(default_factory=set)
    """Matrices that read an attention of a form that is not known."""
    edges: list[Edge] = field(default_factory=list)
    places: dict[fx.Node, Place] = field(default_factory=dict)
    stacks: set[fx.Node] = field(default_factory=set)
    """Products of experts that were reported together."""
    unresolved: list[Unresolved] = field(default_factory=list)

    def miss(self, what: str, why: str, *roles: str) -> None:
        """Say what was not told."""
        self.unresolved.append(Unresolved(what, why, roles))

    def place(self, node: fx.Node) -> Place:
        """Where a node is."""
        return self.places.get(node, Place())

    def settle(self, nodes: frozenset[fx.Node] | set[fx.Node], place: Place) -> None:
        """Put nodes at a place, unless they are at one."""
        for node in nodes:
            self.places.setdefault(node, place)


def assign(reading: Reading) -> Roles:
    """Tell the roles of a graph."""
    roles = Roles()
    for stream in reading.streams.all:
        for addition, layer in zip(stream.additions, stream.layers, strict=True):
            place = Place(layer, stream.stack, in_block=True)
            for branch in addition.branches:
                _branch(addition, branch, place, reading, roles)
            if addition.norm is not None:
                last = addition.branches[-1].leaf
                roles.settle({addition.norm.y}, roles.place(last))
        _blocks(stream, reading, roles)
        if stream.attends and is_computed(stream, reading):
            what = f"positions of {stream.stack or 'the model'}"
            roles.miss(what, "they are computed, not rows of a learned table", "pos")
    _stray_attentions(reading, roles)
    # A method would extend the others of these only.
    known = (c for c in roles.cores if c.owner.anchor.weight not in roles.partly)
    roles.cores = list(known)
    _head(reading, roles)
    _rest(reading, roles)
    return roles


def _branch(
    addition: Addition, branch: Branch, place: Place, reading: Reading, roles: Roles
) -> None:
    crossing = reading.streams.crossing
    cross = any(a.out in crossing for a in branch.attentions)
    place = replace(place, cross=cross)
    roles.settle(branch.nodes, place)
    _routers(branch, place, reading, roles)
    if branch.attentions:
        u = _tap(addition, branch, reading)
        for attention in branch.attentions:
            _attention(attention, place, reading, roles, u)
        role = "attn"
        why = _no_output(branch, reading)
    else:
        role = _feed_forward(branch, place, reading, roles)
        why = ""
    if role and not why:
        why = _no_channels(branch, reading)
    if why:
        roles.miss(f"{role} of {place}", why, role)
    elif role:
        roles.edges.append(_edge(role, addition, branch, place, reading))


def _no_output(branch: Branch, reading: Reading) -> str:
    """Why a branch with attentions does not give what these give; "" if it does."""
    outs = [attention.out for attention in branch.attentions]
    flow, ends = reading.flow, reading.ends
    first = {n for out in outs for n in flow.ahead(out, ends.__contains__)}
    after = {n for node in first for n in flow.ahead(node, ends.__contains__)}
    if after & branch.nodes - first:
        return "further products or sums follow the attention before the residual's"
    return ""


def _no_channels(branch: Branch, reading: Reading) -> str:
    """Why the last axis of a branch's output is not its channels; "" if it is.

    Told by its size: no model is as wide as the examples have tokens.
    """
    node, products = _last_product(branch, reading), reading.products
    linear = products.linears.get(node)
    if linear is not None and not linear.experts:
        width = linear.outside
    elif ops.name(node) in ops.CONVOLUTIONS:
        width = ops.shape(products.opaque[node][0])[0]
    else:
        return ""
    last = ops.shape(branch.leaf)[-1]
    # A gated output has half the channels of its product.
    return "" if width in (last, 2 * last) else "its channels are not the last axis"


def _attention(
    attention: Attention,
    place: Place,
    reading: Reading,
    roles: Roles,
    u: fx.Node | None = None,
) -> None:
    for role, value in attention.inputs:
        _input(role, value, place, reading, roles)
    after = reading.flow.ahead(attention.out, reading.ends.__contains__)
    if len(after) == 1 and after[0] in reading.products.linears:
        owner = reading.products.linears[after[0]]
        roles.uses.append(Use(owner, "o", place))
        heads = seen_heads(attention, owner.inside)
        if heads is not None:
            turns = turned(attention, reading)
            roles.cores.append(Core(attention, heads, owner, place, u, turns))
            return
        why = "its heads are no axis of its products"
        roles.miss(f"attention of {place}", why, "attention")
        roles.partly.add(owner.anchor.weight)
    else:
        why = f"{len(after)} products or sums read the attention first, not one linear"
        roles.miss(f"o of {place}", why, "o", "attention")


def _input(
    role: str, value: fx.Node, place: Place, reading: Reading, roles: Roles
) -> None:
    """Follow one input of an attention back to the linear that makes it."""
    met = reading.flow.back(value, reading.ends.__contains__)
    hits = met & reading.ends
    told = reading.products.linears
    linears = [told[n] for n in hits if n in told]
    # A table's rows (positions) come from no activation: they only accompany a linear.
    others = len(hits - told.keys() - reading.products.gathers.keys())
    roles.settle(met - (hits - told.keys()), place)
    if len(linears) == 1 and not others:
        roles.uses.append(Use(linears[0], role, place, (value,)))
        return
    why = f"it is made from {len(linears)} linears and {others} other values"
    roles.miss(f"{role} of {place}", why, role)


def _feed_forward(branch: Branch, place: Place, reading: Reading, roles: Roles) -> str:
    """Tell the parts of a branch without attention; its role, "" if it has none."""
    flow, products = reading.flow, reading.products
    if branch.mixers:
        by = min(branch.mixers, key=reading.flow.order.__getitem__)
        why = f"it mixes tokens by `{ops.name(by)}`, not by an attention that is known"
        roles.miss(f"a sublayer of {place}", why)
        return ""
    has_experts = _experts(branch, place, reading, roles)
    told = []
    for leaf in parts(branch.leaf, flow):
        if _is_stacked(leaf, branch, reading):
            continue
        part = plain_block(replace(branch, leaf=leaf), flow, products)
        if isinstance(part, FeedForward):
            told.append(part)
        else:
            roles.miss(f"ffn of {place}", part, "up", "gate", "down")
    for part in told:
        _parts(part, "", place, roles)
    return "ffn" if told or has_experts else ""


def _parts(part: FeedForward, prefix: str, place: Place, roles: Roles) -> None:
    roles.uses.append(Use(part.down, f"{prefix}down", place))
    for role, piece in (("up", part.up), ("gate", part.gate)):
        if piece is not None:
            use = Use(piece.linear, prefix + role, place, (piece.value,))
            roles.uses.append(use)


def _is_stacked(leaf: fx.Node, branch: Branch, reading: Reading) -> bool:
    """Whether a value is made by stacked experts last."""
    ends = reading.products.is_product
    if ends(leaf):  # whatever is added to it in place
        return _stacks(leaf, reading)
    met = reading.flow.back(leaf, lambda n: ends(n) or n not in branch.nodes)
    return any(_stacks(n, reading) for n in met & branch.nodes)


def _stacks(node: fx.Node, reading: Reading) -> bool:
    """Whether the matrices of several experts enter a product."""
    linear = reading.products.linears.get(node)
    if linear is not None:
        return linear.experts > 0
    entering = reading.products.opaque.get(node, ())
    is_convolution = ops.name(node) in ops.CONVOLUTIONS
    return not is_convolution and any(len(ops.shape(p)) == 3 for p in entering)


def _routers(branch: Branch, place: Place, reading: Reading, roles: Roles) -> None:
    """Tell what chooses among the stacked experts of a branch."""
    if not any(_stacks(node, reading) for node in branch.nodes):
        return
    flow, linears = reading.flow, reading.products.linears
    for node in branch.nodes & linears.keys():
        ends = flow.ahead(node, lambda n: n in reading.ends or ops.name(n) in _CHOICES)
        if any(ops.name(n) in _CHOICES for n in ends):
            roles.uses.append(Use(linears[node], "router", place))


def _experts(branch: Branch, place: Place, reading: Reading, roles: Roles) -> bool:
    """Tell stacked experts; whether there are any."""
    stacks = {node for node in branch.nodes if _stacks(node, reading)}
    if not stacks:
        return False
    flow, products = reading.flow, reading.products
    for part in expert_blocks(branch, flow, products):
        _parts(part, "experts.", place, roles)
        stacks -= {part.down.call, *(piece.linear.call for piece in part.first)}
    if stacks:
        why = "the matrices of all experts enter a product of a form that is not known"
        roles.miss(f"experts of {place}", why, *_EXPERTS)
        roles.stacks |= stacks
    return True


def _edge(
    role: str, addition: Addition, branch: Branch, place: Place, reading: Reading
) -> Edge:
    norm = None if addition.norm is None else addition.norm.y
    source = _last_product(branch, reading)
    u = _tap(addition, branch, reading)
    return Edge(role, branch.leaf, branch.reader, source, place, u, norm)


def _last_product(branch: Branch, reading: Reading) -> fx.Node:
    """The last product of a branch; one with a single channel only scales others."""
    order, products = reading.flow.order, reading.products
    inside = [n for n in branch.nodes if products.is_product(n)]
    # A batched product has its channels on the axis before the last.
    scales = {n for n, linear in products.linears.items() if linear.outside == 1}
    return max(inside, key=lambda n: (n not in scales, order[n]))


def _tap(addition: Addition, branch: Branch, reading: Reading) -> fx.Node | None:
    """The nearest value, of the edge's shape, that all first linears of a branch read
    or a view or a cast of it."""
    linears = reading.products.linears
    xs = [
        linears[node].anchor.x
        for node in branch.nodes & linears.keys()
        if not linears[node].experts
    ]
    runs = [_run_before(x) for x in xs if _is_first(x, addition, reading)]
    wanted = ops.shape(branch.leaf)
    common = (n for n in (runs or [[]])[0] if all(n in run for run in runs))
    return next((n for n in common if ops.shape(n) == wanted), None)


def _run_before(x: fx.Node) -> list[fx.Node]:
    """A value, and what it is a view or a cast of, nearest first; tokens that windows
    are filled up with are no part of it."""
    run = [x]
    while ops.name(x) in ops.VIEWS | ops.CASTS | {"pad"} and ops.is_unary(x):
        x = ops.inputs(x)[0]
        run.append(x)
    return run


def _is_first(x: fx.Node, addition: Addition, reading: Reading) -> bool:
    """Whether no product lies between the residual and the input of a linear."""
    way = reading.flow.between(addition.origin, x)
    return not any(map(reading.products.is_product, way))


def _blocks(stream: Stream, reading: Reading, roles: Roles) -> None:
    """The edge after each layer."""
    branches = [b for a in stream.additions for b in a.branches]
    if stream.is_inner or not any(branch.attentions for branch in branches):
        return
    ends = dict(zip(stream.layers, stream.additions, strict=True))
    for layer, addition in ends.items():
        place = Place(layer, stream.stack, in_block=True)
        order = reading.flow.order
        last = max(addition.branches, key=lambda branch: order[branch.leaf])
        source = _last_product(last, reading)
        why = _no_channels(replace(last, leaf=addition.value), reading)
        if why:
            roles.miss(f"block of {place}", why, "block")
        else:
            roles.edges.append(Edge("block", addition.value, None, source, place))


def _stray_attentions(reading: Reading, roles: Roles) -> None:
    """Attentions that add to no residual stream (poolers)."""
    streams = reading.streams.all
    branches = (b for s in streams for a in s.additions for b in a.branches)
    told = {a.out for branch in branches for a in branch.attentions}
    for attention in reading.attentions:
        if attention.out not in told:
            _attention(attention, Place(), reading, roles)
    if not reading.attentions:
        why = (
            "the graph has no attention that is one call or two products and a softmax"
        )
        roles.miss("layers", why, "q", "k", "v", "o", "attn", "ffn", "block")


def _head(reading: Reading, roles: Roles) -> None:
    """The one product outside the blocks that leads to an output and to nothing else,
    unless the model gives out what that product reads (a pooler beside the states) and
    its matrix is no table."""
    products = reading.products
    outside = (
        node
        for node in (*products.linears, *products.opaque)
        if not roles.place(node).in_block
    )
    last = [node for node in outside if _is_last(node, reading)]
    is_told = any(not _reads_states(node, reading) for node in last)
    if is_told and len(last) == 1 and last[0] in products.linears:
        roles.uses.append(Use(products.linears[last[0]], "head", Place()))
    elif is_told:
        why = f"{len(last)} products make outputs, not one that is `W x + bias`"
        roles.miss("head", why, "head")


def _is_last(node: fx.Node, reading: Reading) -> bool:
    output, ends = reading.output, reading.ends
    return reading.flow.ahead(node, lambda n: n is output or n in ends) == (output,)


def _reads_states(node: fx.Node, reading: Reading) -> bool:
    """Whether the model gives out what a product reads, whose matrix is no table."""
    if _is_table(node, reading):
        return False
    sources = reading.flow.back(node, lambda n: n in reading.ends and n is not node)
    given = {n for n in ops.inputs(reading.output) if n is not node}
    return any(
        _is_state(stream, sources, given, reading) for stream in reading.streams.all
    )


def _is_table(node: fx.Node, reading: Reading) -> bool:
    """Whether a product is with a table that tokens look up: no pooler."""
    tables = {gather.weight for gather in reading.products.gathers.values()}
    linear = reading.products.linears.get(node)
    return linear is not None and linear.anchor.weight in tables


def _is_state(
    stream: Stream, sources: set[fx.Node], given: set[fx.Node], reading: Reading
) -> bool:
    """Whether a stream feeds `sources` by its last value, and that value but none
    before it is an output."""
    *before, last = (addition.sum for addition in stream.additions)
    ends = reading.ends
    out = {s for n in given for s in reading.flow.back(n, ends.__contains__) & ends}
    return last in sources & out and not out & set(before)


def _read_at(node: fx.Node, reading: Reading, roles: Roles) -> Place:
    """Where a linear is: in the block that alone reads it, if it is in none (what is
    made from tables of positions)."""
    place = roles.place(node)
    if place.in_block:
        return place
    stops = {*roles.places, *reading.ends, reading.output} - {node}
    around = {roles.place(n) for n in reading.flow.ahead(node, stops.__contains__)}
    (read, *others) = around or {place}
    return read if read.in_block and not others else place


def _rest(reading: Reading, roles: Roles) -> None:
    """Linears without a role, and matrices that are used in another way."""
    products = reading.products
    told = {use.linear.call for use in roles.uses}
    for node, linear in products.linears.items():
        if node not in told:
            roles.uses.append(Use(linear, "", _read_at(node, reading, roles)))
    anchors = [linear.anchor for linear in products.linears.values()]
    said = {n for a in anchors for n in (a.weight, a.bias)}
    said |= {gather.weight for gather in products.gathers.values()}
    for node, parameters in products.opaque.items():
        for parameter in parameters:
            if node not in roles.stacks and parameter not in said:
                why = "its product is not `W x + bias` in one operator"
                roles.miss(reading.names[parameter], why)
        said.update(parameters)
    for parameter, path in reading.names.items():
        if parameter not in said and len(ops.shape(parameter)) > 1:
            roles.miss(path, "it enters no product and no look-up that is known")
