"""Errors of names, arguments, selectors, scopes and files (2xx).

In: nothing.  Out: the diagnostic classes that `peftc.resolve` raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class UnknownTarget(Diagnostic):
    """A positional argument names a site that does not exist in any model.

    Sites are named by their role in the computation, not by the names a model's
    authors chose: `q`, `k`, `v`, `o`, `up`, `gate`, `down`, `attn`, `ffn`, `block`,
    `norm`, `emb`, `head`, `router`, `linear`.  A particular module is named by its
    path in quotes, with `*` for any part.

    Wrong:

        lora(query, r=8)

    Right:

        lora(q, r=8)
        lora("*.query", r=8)
    """

    code: ClassVar[str] = "PEFT201"
    title: ClassVar[str] = "unknown target"
    label: ClassVar[str] = "`{target}` is not a site{where}"
    help: ClassVar[str] = "{hint}"
    target: str
    where: str = ""
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class UnknownMethod(Diagnostic):
    """A spec applies a name that is neither a method nor a `spec` macro.

    Methods come from the standard library (`peftc methods` lists them), from the file
    itself, and from the files it names with `use`.

    Wrong:

        lroa(q, v)

    Right:

        lora(q, v)
    """

    code: ClassVar[str] = "PEFT202"
    title: ClassVar[str] = "unknown method"
    label: ClassVar[str] = "no method or spec is called `{name}`"
    help: ClassVar[str] = "{hint}"
    name: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class NoSuchSite(Diagnostic):
    """A selector is a proper site name, but this model has no such site.

    A selector that matches nothing is an error, since training nothing in silence is
    worse.  Where a spec is meant for several models, `?` after the site makes it
    optional: `lora(q, gate?)`.
    """

    code: ClassVar[str] = "PEFT203"
    title: ClassVar[str] = "the selector matches nothing"
    label: ClassVar[str] = "{model} has no site `{target}`{within}"
    notes: ClassVar[tuple[str, ...]] = ("{reason}",)
    help: ClassVar[str] = "{hint}"
    target: str
    model: str
    within: str = ""
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class UnknownScope(Diagnostic):
    """What follows `@` is not a scope.

    Scopes are `layers(0..11)` (both ends included; single numbers and several ranges
    are allowed), `enc`, `dec`, `self` (all but cross-attention) and `cross`.

    Wrong:

        lora(q) @ layer(0..3)

    Right:

        lora(q) @ layers(0..3)
    """

    code: ClassVar[str] = "PEFT204"
    title: ClassVar[str] = "unknown scope"
    label: ClassVar[str] = "`{name}` is not a scope"
    help: ClassVar[str] = "{hint}"
    name: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class BadLayers(Diagnostic):
    """A layer range is not one, or lies outside the model.

    Layers count from 0; `a..b` includes both ends, so a model of 12 layers has
    `layers(0..11)`.
    """

    code: ClassVar[str] = "PEFT205"
    title: ClassVar[str] = "bad range of layers"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "{hint}"
    problem: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class WrongKind(Diagnostic):
    """A method is applied to a site of a kind it has no equation for.

    A method says what it rewrites: `on linear` (a weight matrix), `on hidden` (the
    activation at the end of a sublayer), `on norm` (a gain and offset).  `attn`, `ffn`
    and `block` are hidden; `q k v o up gate down head router` are linear.

    Wrong:

        lora(ffn)

    Right:

        lora(up, down)
    """

    code: ClassVar[str] = "PEFT206"
    title: ClassVar[str] = "the method cannot be applied there"
    label: ClassVar[str] = "`{method}` rewrites {places}; `{target}` is {kind}"
    help: ClassVar[str] = "{hint}"
    method: str
    places: str
    target: str
    kind: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class WrongArgument(Diagnostic):
    """An argument is of a sort that has no meaning there.

    Positional arguments of a method are sites; a wrapper such as `gate` takes a method
    expression; a macro takes named arguments only; knobs are given by name.

    Wrong:

        lora(q, 8)

    Right:

        lora(q, r=8)
    """

    code: ClassVar[str] = "PEFT207"
    title: ClassVar[str] = "wrong argument"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "{hint}"
    problem: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class UnknownName(Diagnostic):
    """A value uses a name that no `let` and no parameter of the macro gives.

    Wrong:

        let rank = 8
        lora(q, r=rnak)

    Right:

        let rank = 8
        lora(q, r=rank)
    """

    code: ClassVar[str] = "PEFT208"
    title: ClassVar[str] = "unknown name"
    label: ClassVar[str] = "nothing here is called `{name}`"
    help: ClassVar[str] = "{hint}"
    name: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Cycle(Diagnostic):
    """A macro, a `let` or a file refers to itself, directly or through others.

    Wrong:

        spec a() = b()
        spec b() = a()
    """

    code: ClassVar[str] = "PEFT209"
    title: ClassVar[str] = "a definition in terms of itself"
    label: ClassVar[str] = "{chain}"
    chain: str


@dataclass(frozen=True, kw_only=True)
class DefinedTwice(Diagnostic):
    """A name is given two meanings.

    Methods, specs and lets share one name space with the standard library and the files
    in `use`; a second definition would silently change what an older spec means.
    """

    code: ClassVar[str] = "PEFT210"
    title: ClassVar[str] = "defined twice"
    label: ClassVar[str] = "`{name}` is already defined {where}"
    help: ClassVar[str] = "choose another name"
    name: str
    where: str


@dataclass(frozen=True, kw_only=True)
class NoTarget(Diagnostic):
    """A method is applied to no site at all.

    Wrong:

        lora(r=8)

    Right:

        lora(q, v, r=8)
    """

    code: ClassVar[str] = "PEFT211"
    title: ClassVar[str] = "no target"
    label: ClassVar[str] = "`{method}` is applied to nothing"
    help: ClassVar[str] = "name the sites: `{method}({example})`"
    method: str
    example: str


@dataclass(frozen=True, kw_only=True)
class NotAWrapper(Diagnostic):
    """A wrapper is given no method, or a method that is no wrapper is given one.

    A wrapper is a method with a knob of type `method`; its only positional argument is
    the expression it wraps, and the sites are those of that expression.

    Wrong:

        gate(q, v)
        lora(ia3(q))

    Right:

        gate(lora(q, v))
    """

    code: ClassVar[str] = "PEFT212"
    title: ClassVar[str] = "a wrapper and what it wraps do not fit"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "{hint}"
    problem: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class GuardLeavesNothing(Diagnostic):
    """Every site of a selector is ruled out by the method's `where`.

    For example, training biases of a model that has none.
    """

    code: ClassVar[str] = "PEFT213"
    title: ClassVar[str] = "no site fulfils the method's condition"
    label: ClassVar[str] = (
        "`{method}` asks for `{guard}`; none of the {count} sites `{target}` fulfils it"
    )
    help: ClassVar[str] = "{hint}"
    method: str
    guard: str
    count: int
    target: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class NothingToCompile(Diagnostic):
    """A file holds definitions but no expression that applies one.

    Write the spec as a line of its own: `lora(q, v, r=8)`.
    """

    code: ClassVar[str] = "PEFT214"
    title: ClassVar[str] = "nothing to compile"
    label: ClassVar[str] = "the text applies no method"
    help: ClassVar[str] = "add a line such as `{example}`"
    example: str = "lora(q, v, r=8)"


@dataclass(frozen=True, kw_only=True)
class CannotUse(Diagnostic):
    """A file named by `use` cannot be read.

    Paths are relative to the file that says `use`, and stay inside the folder of the
    spec that is compiled: a spec is data and opens nothing else.
    """

    code: ClassVar[str] = "PEFT270"
    title: ClassVar[str] = "cannot use this file"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "{hint}"
    problem: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class BadArithmetic(Diagnostic):
    """A value cannot be computed: a division by zero, or arithmetic on words.

    Values in specs are numbers, words (`gelu`), `true`, `false` and strings; numbers
    combine with `+ - * /`.
    """

    code: ClassVar[str] = "PEFT271"
    title: ClassVar[str] = "this value cannot be computed"
    label: ClassVar[str] = "{problem}"
    problem: str


@dataclass(frozen=True, kw_only=True)
class TooMuch(Diagnostic):
    """A spec expands to more applications than any model needs.

    Macros that call macros can double at every level; expansion stops at {limit}
    applications, before it costs memory or time.
    """

    code: ClassVar[str] = "PEFT272"
    title: ClassVar[str] = "the spec expands to too much"
    label: ClassVar[str] = "more than {limit} applications"
    limit: int
