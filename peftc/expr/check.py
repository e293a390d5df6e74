"""Checking a method definition once, before any model exists.

In: a parsed method.  Out: nothing, or a `PeftcError` with all errors of the definition.
Sizes are names here: what is accepted has the right shapes whatever the numbers, except
that a quotient such as `out/a` must come out whole at each site.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from peftc.diagnostics.attention import PlaceNotTold
from peftc.diagnostics.choices import BadChoice, NothingToDeriveFrom
from peftc.diagnostics.core import Diagnostics, PeftcError, fail, suggestion
from peftc.diagnostics.definitions import (
    AxisElsewhere,
    BadDefault,
    ClauseUnreachable,
    DistributionArguments,
    KnobUnused,
    NameTaken,
    NothingRewritten,
    TensorUnused,
    UnknownFact,
    UnknownKnobType,
    UnknownPlace,
    WrappedUnused,
)
from peftc.diagnostics.networks import NetworkPlace
from peftc.diagnostics.training import ControlPlace
from peftc.diagnostics.wrappers import ParamElsewhere
from peftc.expr import numbers
from peftc.expr.controls import controls as all_controls
from peftc.expr.distributions import DISTRIBUTIONS, KNOBS
from peftc.expr.elaborate import Body, symbolic
from peftc.expr.formulas import MODEL_NUMBERS
from peftc.expr.knobs import (
    KNOB_TYPES,
    SPELT,
    Given,
    Type,
    convert,
    default_order,
    knob_types,
    written,
)
from peftc.expr.places import AXES, PLACES, TARGETS
from peftc.expr.scope import REDIRECTIONS, TOKENS, kind_of
from peftc.expr.spots import header, spot
from peftc.expr.terms import FUNCTIONS
from peftc.expr.uses import (
    body_names,
    expressions,
    inside,
    names_in,
    sure_names,
    tests,
)
from peftc.syntax import ast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from peftc.diagnostics.core import Diagnostic
    from peftc.syntax.source import Span
    from peftc.view import Kind

FACTS: Mapping[str, tuple[str, ...]] = {
    "linear": ("biased", "causal"),
    "hidden": ("causal",),
    "norm": ("biased",),
    "attention": ("causal",),
    "model": (),
    "input": ("causal",),
    "param": ("matrix", "up", "down"),
    "side": (),
}
"""What `where` may ask of a site: a bias of a linear, an offset of a norm; that tokens
see no later tokens; that a tensor has two axes or more, that its first one is what the
site gives (`up`), that it is not (`down`)."""

SPEC_NUMBERS = ("sites", *MODEL_NUMBERS)
"""What defaults of knobs may use beside axes: how many matrices or edges an application
in a spec is at, each expert's for itself, and numbers of the model."""

ALL_AXES = frozenset(axis for axes in AXES.values() for axis in axes)


def check_method(method: ast.Method) -> None:
    """Check a definition.

    Raises:
        PeftcError: with all errors, those of the header first.
    """
    check = _Check(method)
    for step in (_knobs, _choices, _defaults, _clauses):
        for found in step(check):
            check.errors.add(found)
    for clause in method.clauses:
        check.attempt(partial(_body, check, clause))
    check.errors.check()


@dataclass
class _Check:
    """A method under check."""

    method: ast.Method
    errors: Diagnostics = field(default_factory=Diagnostics)
    ambiguous: set[str] = field(default_factory=set)
    """Knobs whose names mean something else as well: what reads them is not checked."""

    @property
    def kinds(self) -> dict[Kind, None]:
        """The kinds of sites that the clauses rewrite."""
        kinds = (kind_of(clause.place) for clause in self.method.clauses)
        return dict.fromkeys(kind for kind in kinds if kind)

    def attempt(self, step: Callable[[], None]) -> None:
        """Run a step and keep its errors."""
        try:
            step()
        except PeftcError as error:
            self.errors.absorb(error)


# --- knobs ---------------------------------------------------------------------------


def _knobs(check: _Check) -> Iterator[Diagnostic]:
    """Names and types of knobs, and that each has a use."""
    used, seen = _used(check.method), set[str]()
    for knob in check.method.params:
        meaning = "a knob" if knob.name in seen else _meaning(check, knob.name)
        if meaning:
            check.ambiguous.add(knob.name)
            span = spot(knob.span, knob.name)
            yield NameTaken(span=span, name=knob.name, meaning=meaning)
        elif knob.name not in used and knob.type != "method":
            yield KnobUnused(span=spot(knob.span, knob.name), name=knob.name)
        seen.add(knob.name)
        if knob.type and knob.type not in KNOB_TYPES:
            near = suggestion(knob.type, KNOB_TYPES)
            hint = near or f"types are {', '.join(KNOB_TYPES)}"
            span = spot(knob.span, knob.type, after=":")
            yield UnknownKnobType(span=span, name=knob.type, hint=hint)
        if knob.type == "derived" and knob.default is None:
            yield NothingToDeriveFrom(span=knob.span, name=knob.name)
        yield from _words(knob)
    yield from _wrappers(check.method)


def _words(knob: ast.Parameter) -> Iterator[Diagnostic]:
    """The words of a choice differ, and its default is one of them."""
    for word in dict.fromkeys(knob.words):
        if knob.words.count(word) > 1 or word in numbers.TRUTH:
            problem = f"`{word}` is a flag's value"
            if word not in numbers.TRUTH:
                problem = f"`{word}` stands twice"
            yield BadChoice(span=spot(knob.span, word, after=":"), problem=problem)
    default = knob.default
    named = isinstance(default, ast.Name) and default.id in knob.words
    if knob.words and default and not named:
        problem = f"`{default.span.text}` is none of the words of `{knob.name}`"
        hint = suggestion(default.span.text, knob.words)
        yield BadChoice(span=default.span, problem=problem, hint=hint)


def _choices(check: _Check) -> Iterator[Diagnostic]:
    """What `choose` asks of a choice, wherever it stands."""
    types = knob_types(check.method)
    defaults = (p.default for p in check.method.params if p.default)
    bodies = chain.from_iterable(map(expressions, check.method.clauses))
    for expr in chain.from_iterable(map(inside, (*defaults, *bodies))):
        if isinstance(expr, ast.Is):
            yield from _choice(types, expr.name.id, expr.word, expr.span)


def _used(method: ast.Method) -> set[str]:
    """Knobs that the clauses read, or that defaults of such knobs read."""
    used = set(body_names(method))
    defaults = {p.name: p.default for p in method.params if p.default}
    fresh = set(used)
    while fresh:
        reached = (names_in(defaults[name]) for name in fresh if name in defaults)
        fresh = set().union(*reached) - used
        used |= fresh
    return used


def _meaning(check: _Check, name: str) -> str:
    """What a knob's name would hide, or the empty string."""
    if any(name in PLACES[kind] for kind in check.kinds):
        return "a value of the site"
    if name in (*ALL_AXES, *TOKENS) and set(check.kinds) != {"model"}:
        return "an axis"
    if name in SPEC_NUMBERS:
        return "a number of the spec"
    if any(name in FACTS[kind] for kind in check.kinds):
        return "a fact of sites"
    return "a function" if name in (*FUNCTIONS, *numbers.TRUTH) else ""


def _wrappers(method: ast.Method) -> Iterator[Diagnostic]:
    wrapped = [knob for knob in method.params if knob.type == "method"]
    for extra in wrapped[1:]:
        problem = "a wrapper wraps one method; several are joined with `+` inside it"
        yield WrappedUnused(span=extra.span, problem=problem)


# --- defaults ------------------------------------------------------------------------


def _defaults(check: _Check) -> Iterator[Diagnostic]:
    """Every default is a value of its knob's type, as far as can be told."""
    try:
        order = default_order(check.method)
    except PeftcError as error:
        yield from error.diagnostics
        return
    params = {knob.name: knob for knob in check.method.params}
    spelt = [n for n, t in knob_types(check.method).items() if t.name in SPELT]
    yield from (e for name in spelt for e in _spelt_default(check.method, params[name]))
    order = tuple(n for n in order if not params[n].words and n not in spelt)
    yield from (e for knob in params.values() for e in _wrapper_default(knob))
    known: dict[str, numbers.Value] = dict.fromkeys(ALL_AXES)
    known |= dict.fromkeys((*order, *SPEC_NUMBERS))
    for name in order:
        default = params[name].default
        if default is None:
            continue
        elsewhere = list(_elsewhere(check, default))
        yield from elsewhere
        try:
            if not elsewhere:
                known[name] = _default(check.method, params[name], default, known)
        except PeftcError as error:
            yield from error.diagnostics


def _wrapper_default(knob: ast.Parameter) -> Iterator[Diagnostic]:
    if knob.type == "method" and knob.default:
        problem = f"`{knob.name}` is what a spec wraps; it has no default"
        yield BadDefault(span=knob.default.span, problem=problem)


def _spelt_default(method: ast.Method, knob: ast.Parameter) -> Iterator[Diagnostic]:
    """What is wrong with a default that is a text or places."""
    if knob.default is None:
        return
    try:
        convert(knob.name, knob_types(method)[knob.name], written(knob.default))
    except PeftcError as error:
        for found in error.diagnostics:
            yield BadDefault(span=knob.default.span, problem=found.fill(found.label))


def _elsewhere(check: _Check, default: ast.Expr) -> Iterator[Diagnostic]:
    """The axes in a default that some place of the method lacks."""
    axes = names_in(default) & {*ALL_AXES, *TOKENS}
    for axis in sorted(axes - {p.name for p in check.method.params}):
        place = next((k for k in check.kinds if axis not in AXES[k]), "")
        if place:
            span = spot(default.span, axis)
            yield AxisElsewhere(span=span, axis=axis, place=place)


def _default(
    method: ast.Method,
    knob: ast.Parameter,
    default: ast.Expr,
    known: Mapping[str, numbers.Value],
) -> numbers.Value:
    kind = knob_types(method)[knob.name]
    value = numbers.compute(default, known)
    if kind.name == "flag" and not isinstance(value, bool):
        problem = f"`{knob.name}` is a flag; its default is `true` or `false`"
        raise fail(BadDefault(span=default.span, problem=problem))
    if value is None:
        return None
    plain = float(value) if not isinstance(value, (int, str)) else value
    try:
        return convert(knob.name, kind, Given(plain, default.span))
    except PeftcError as error:
        found = error.diagnostics[0]
        problem, hint = found.fill(found.label), found.fill(found.help)
        raise fail(BadDefault(span=default.span, problem=problem, hint=hint)) from None


# --- clauses -------------------------------------------------------------------------


def _params(method: ast.Method) -> Iterator[Diagnostic]:
    """Clauses `on param` stand in wrappers, and not beside others."""
    places = {clause.place for clause in method.clauses}
    if "param" not in places:
        return
    clause = next(c for c in method.clauses if c.place == "param")
    wraps = any(knob.type == "method" for knob in method.params)
    if len(places) > 1 or not wraps:
        other = ", ".join(f"`on {place}`" for place in sorted(places - {"param"}))
        problem = f"it stands beside {other}" if other else "this method wraps nothing"
        yield ParamElsewhere(span=header(clause.span), problem=problem)


def _clauses(check: _Check) -> Iterator[Diagnostic]:
    """Places, guards, and that every clause can be reached."""
    clauses = check.method.clauses
    yield from _params(check.method)
    for index, clause in enumerate(clauses):
        kind = kind_of(clause.place)
        if kind is None:
            yield _unknown_place(clause)
            continue
        yield from _guard(check, clause, FACTS[kind])
        for earlier in clauses[:index]:
            if earlier.place == clause.place and _takes_all(earlier, clause):
                span, line = header(clause.span), earlier.span.line
                special = len(str(earlier.guard)) < len(str(clause.guard))
                hint = "put the special case first" if special else "join the two"
                yield ClauseUnreachable(span=span, line=line, hint=hint)
                break


def _takes_all(earlier: ast.Clause, later: ast.Clause) -> bool:
    """Whether each way to fulfil the later guard fulfils the earlier one."""
    if not earlier.guard:
        return True
    wanted = [set(one) for one in earlier.guard]
    return bool(later.guard) and all(
        any(one <= set(given) for one in wanted) for given in later.guard
    )


def _unknown_place(clause: ast.Clause) -> UnknownPlace:
    redirections = [f"{b}.{r}" for b, roles in REDIRECTIONS.items() for r in roles]
    near = suggestion(clause.place, (*PLACES, *redirections))
    hint = near or f"places are {', '.join(PLACES)}, and {', '.join(redirections)}"
    span = spot(clause.span, clause.place, after="on")
    return UnknownPlace(span=span, name=clause.place, hint=hint)


def _guard(
    check: _Check, clause: ast.Clause, facts: tuple[str, ...]
) -> Iterator[Diagnostic]:
    types = knob_types(check.method)
    deciding = [name for name, kind in types.items() if kind.name in ("flag", "count")]
    for test in tests(clause):
        name = test.name
        if test.word:
            yield from _choice(types, test.name, test.word, test.span)
        elif name not in (*facts, *deciding) or (
            name in types and name not in deciding
        ):
            hint = suggestion(name, (*facts, *deciding))
            if name in types and types[name].words:
                hint = f"`{name} is {types[name].words[0]}` asks for a word of it"
            place = clause.place
            yield UnknownFact(span=test.span, name=name, place=place, hint=hint)


def _choice(
    types: Mapping[str, Type], name: str, word: str, span: Span
) -> Iterator[Diagnostic]:
    """`name is word`: a choice of the method, and one of its words."""
    words = types[name].words if name in types else ()
    if word in words:
        return
    choices = [name for name, kind in types.items() if kind.words]
    problem = f"`{name}` is no knob with words to choose from"
    hint = suggestion(name, choices)
    if words:
        problem = f"`{word}` is none of the words of `{name}`"
        hint = suggestion(word, words) or f"they are {types[name].meaning}"
    yield BadChoice(span=span, problem=problem, hint=hint)


def _body(check: _Check, clause: ast.Clause) -> None:
    """Read a clause with sizes as names; then see that nothing in it is idle."""
    kind = kind_of(clause.place)
    if kind is None:
        return
    kinds = knob_types(check.method)
    types = {name: t.name for name, t in kinds.items()}
    counts = (name for name in sure_names(clause) if types.get(name) == "count")
    body = Body(symbolic(kind, {**types, **dict.fromkeys(counts, "size")}))
    body.scope.tensors |= dict.fromkeys(check.ambiguous)
    body.read(clause)
    for misused in _spelt(clause, types):
        body.errors.add(misused)
    if kind in ("model", "side"):
        for wrong in _whole(clause) if kind == "model" else _beside(clause):
            body.errors.add(wrong)
    elif not any(isinstance(s, ast.Rule | ast.Store) for s in clause.body):
        targets = ", ".join(f"`{t}'`" for t in TARGETS[kind])
        body.errors.add(NothingRewritten(span=header(clause.span), targets=targets))
    if not len(body.errors):
        for idle in _idle(check, clause, body):
            body.errors.add(idle)
    body.errors.check()


def _whole(clause: ast.Clause) -> Iterator[Diagnostic]:
    """A clause about the whole model has controls, and nothing else but names."""
    controls = [s for s in clause.body if isinstance(s, ast.Train)]
    if not controls:
        problem = "a clause `on model` says what training does: `train ...`"
        yield ControlPlace(span=header(clause.span), problem=problem)
    for control in controls:
        known = all_controls().get(control.control)
        if known and not known.whole:
            problem = f"`{known.name}` works on tensors of sites"
            yield ControlPlace(span=control.span, problem=problem)
    for statement in clause.body:
        if isinstance(statement, ast.Declare):
            problem = "the model as a whole has no tensors of its own"
            yield ControlPlace(span=statement.span, problem=problem)


def _spelt(clause: ast.Clause, types: Mapping[str, str]) -> Iterator[Diagnostic]:
    """Places and texts are told by knobs of their type; places are of rows."""
    rules = {s.target: s for s in clause.body if isinstance(s, ast.Rule)}
    place = rules.get("before")
    if place and isinstance(place.value, ast.Name):
        if types.get(place.value.id) not in ("places", None):
            yield PlaceNotTold(span=place.value.span)
        elif "rows" not in rules:
            problem = "there are no rows here that could stand before a token"
            yield PlaceNotTold(span=place.span, problem=problem, hint="rule `rows'`")
    for random in _randoms(clause):
        told = [types.get(a.id) for a in random.args if isinstance(a, ast.Name)]
        wanted = KNOBS.get(random.distribution)
        if wanted and told not in ([wanted], [None], []):
            problem = f"`{random.distribution}` takes one knob of the type `{wanted}`"
            form, _ = DISTRIBUTIONS[random.distribution]
            yield DistributionArguments(span=random.span, problem=problem, form=form)


def _randoms(clause: ast.Clause) -> Iterator[ast.Random]:
    """The initial values that are drawn."""
    declares = (s for s in clause.body if isinstance(s, ast.Declare))
    inits = (tensor.init for one in declares for tensor in one.tensors)
    return (init for init in inits if isinstance(init, ast.Random))


def _beside(clause: ast.Clause) -> Iterator[Diagnostic]:
    """A clause `on side` has one network, which has all the tensors."""
    networks = [s for s in clause.body if isinstance(s, ast.Network)]
    if len(networks) != 1:
        problem = f"a clause `on side` has one `network ...`, not {len(networks)}"
        yield NetworkPlace(span=header(clause.span), problem=problem)
    for statement in clause.body:
        if isinstance(statement, ast.Declare):
            problem = "the tensors beside the backbone are the network's own"
            yield NetworkPlace(span=statement.span, problem=problem)


def _idle(check: _Check, clause: ast.Clause, body: Body) -> Iterator[Diagnostic]:
    """Tensors and local names that nothing reads, wrapped methods not called."""
    for statement in clause.body:
        new: tuple[ast.Tensor | ast.Define, ...] = ()
        if isinstance(statement, ast.Declare):
            new = statement.tensors
        elif isinstance(statement, ast.Define):
            new = (statement,)
        for node in new:
            if node.name not in body.scope.read:
                yield TensorUnused(span=spot(node.span, node.name), name=node.name)
    for knob in check.method.params:
        read = knob.name in body.scope.read or clause.place == "param"
        if knob.type == "method" and not read:
            problem = f"this clause never calls `{knob.name}`"
            yield WrappedUnused(span=header(clause.span), problem=problem)
