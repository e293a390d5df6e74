"""Errors of a method definition as a whole: its tensors, rules and clauses (250-269).

In: nothing.  Out: the diagnostic classes that `peftc.expr.check` raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class CannotRewrite(Diagnostic):
    """A rule's left side is not a value that this place rewrites.

    `on linear` rewrites `W'`, `bias'`, `x'` and `y'`; `on hidden` rewrites `h'`;
    `on norm` rewrites `g'` and `c'`.

    Wrong:

        method m() on hidden { param l[hidden] = 1; y' = l * h }

    Right:

        method m() on hidden { param l[hidden] = 1; h' = l * h }
    """

    code: ClassVar[str] = "PEFT250"
    title: ClassVar[str] = "this cannot be rewritten here"
    label: ClassVar[str] = "a method on {place} rewrites {targets}, not `{target}'`"
    target: str
    place: str
    targets: str


@dataclass(frozen=True, kw_only=True)
class RuleShape(Diagnostic):
    """The right side of a rule has other axes than the value it replaces.

    Wrong:

        method m() on linear { param A[in, out] = 0; W' = A }

    Right:

        method m() on linear { param A[in, out] = 0; W' = W + A.T }
    """

    code: ClassVar[str] = "PEFT251"
    title: ClassVar[str] = "a rule of the wrong shape"
    label: ClassVar[str] = "`{target}'` must be {wanted}, this is {axes}"
    help: ClassVar[str] = "{hint}"
    target: str
    wanted: str
    axes: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class PrimedTwice(Diagnostic):
    """One clause rewrites the same value twice.

    Inside a rule the unprimed name is the value before this method, so a second rule
    would throw the first away.  Write one rule.

    Wrong:

        method m() on linear { param l[out] = 1; W' = l * W; W' = W * l }

    Right:

        method m() on linear { param l[out] = 1; W' = l * W * l }
    """

    code: ClassVar[str] = "PEFT252"
    title: ClassVar[str] = "rewritten twice"
    label: ClassVar[str] = "`{target}'` has a rule already, on line {line}"
    target: str
    line: int


@dataclass(frozen=True, kw_only=True)
class RuleOrder(Diagnostic):
    """`W'`, `bias'` and `x'` change what the layer multiplies, `y'` what comes out.

    The rule for `y'` reads the `y` of the rules above it, so it stands last; a rule
    for the weight after it would not be part of what `y'` says.

    Wrong:

        method m() on linear { param l[out] = 1; y' = l * y; W' = l * W }

    Right:

        method m() on linear { param l[out] = 1; W' = l * W; y' = l * y }
    """

    code: ClassVar[str] = "PEFT253"
    title: ClassVar[str] = "rules in the wrong order"
    label: ClassVar[str] = "`{target}'` is rewritten after `y'`"
    help: ClassVar[str] = "put the rule for `y'` last"
    target: str


@dataclass(frozen=True, kw_only=True)
class NothingRewritten(Diagnostic):
    """A clause has no rule, so its method would do nothing at such a site.

    Give an equation for `W'`, `bias'`, `x'` or `y'` (on linear), `h'` (on hidden), `g'`
    or `c'` (on norm).

    Wrong:

        method m() on linear { param A[out, in] ~ normal(1); loss += norm2(A) }

    Right:

        method m() on linear {
          param A[out, in] ~ normal(1)
          W' = W + A
          loss += norm2(A)
        }
    """

    code: ClassVar[str] = "PEFT254"
    title: ClassVar[str] = "nothing is rewritten"
    label: ClassVar[str] = "this clause has no rule"
    help: ClassVar[str] = "give an equation for {targets}"
    targets: str


@dataclass(frozen=True, kw_only=True)
class LossNotScalar(Diagnostic):
    """A loss term must be one number.

    Wrong:

        method m() on linear { param A[out, in] = 0; W' = W + A; loss += A * A }

    Right:

        method m() on linear { param A[out, in] = 0; W' = W + A; loss += norm2(A) }
    """

    code: ClassVar[str] = "PEFT255"
    title: ClassVar[str] = "a loss that is not a number"
    label: ClassVar[str] = "this is {axes}"
    help: ClassVar[str] = "reduce it: `sum(...)`, `mean(...)` or `norm2(...)`"
    axes: str


@dataclass(frozen=True, kw_only=True)
class NameTaken(Diagnostic):
    """A tensor, a local name or a knob takes a name that has a meaning already.

    Every name means one thing within a definition: the values and axes of the place
    (`W`, `x`, `in`, `t`, ...), the functions, the knobs, the tensors and local names.

    Wrong:

        method m(r = 8) on linear { param r[out] = 0; y' = y + r }

    Right:

        method m(r = 8) on linear { param l[out] = 0; y' = y + r * l }
    """

    code: ClassVar[str] = "PEFT256"
    title: ClassVar[str] = "a name with two meanings"
    label: ClassVar[str] = "`{name}` is already {meaning}"
    help: ClassVar[str] = "{hint}"
    name: str
    meaning: str
    hint: str = "choose another name"


@dataclass(frozen=True, kw_only=True)
class KnobUnused(Diagnostic):
    """A knob that nothing reads: setting it would have no effect.

    Wrong:

        method m(r = 8, alpha = 16) on linear { param A[r, in], B[out, r] = 0
          W' = W + B @ A }

    Right:

        method m(r = 8, alpha = 16) on linear { param A[r, in], B[out, r] = 0
          W' = W + (alpha / r) * B @ A }
    """

    code: ClassVar[str] = "PEFT257"
    title: ClassVar[str] = "a knob that does nothing"
    label: ClassVar[str] = "nothing reads `{name}`"
    help: ClassVar[str] = "use it or remove it"
    name: str


@dataclass(frozen=True, kw_only=True)
class TensorUnused(Diagnostic):
    """A tensor or local name that no rule and no loss reads.

    A parameter that the result does not depend on costs memory and never gets a
    gradient.

    Wrong:

        method m() on linear { param l[out] = 1, k[in] = 1; y' = l * y }

    Right:

        method m() on linear { param l[out] = 1; y' = l * y }
    """

    code: ClassVar[str] = "PEFT258"
    title: ClassVar[str] = "a tensor that does nothing"
    label: ClassVar[str] = "no rule reads `{name}`"
    help: ClassVar[str] = "use it or remove it"
    name: str


@dataclass(frozen=True, kw_only=True)
class InitialShape(Diagnostic):
    """An initial value does not fit its tensor.

    It is a number, or an expression over the base weight with the tensor's axes; it
    cannot read activations or other tensors.

    Wrong:

        method m() on linear { param s[in] = norm(W, in); W' = s * W }

    Right:

        method m() on linear { param s[out] = norm(W, in); W' = s * W }
    """

    code: ClassVar[str] = "PEFT259"
    title: ClassVar[str] = "an initial value that does not fit"
    label: ClassVar[str] = "{problem}"
    problem: str


@dataclass(frozen=True, kw_only=True)
class UnknownDistribution(Diagnostic):
    """What follows `~` is not a distribution.

    There are `kaiming(a)`, `glorot(gain)`, `normal(std)`, `uniform(low, high)` and
    `orthogonal`.

    Wrong:

        method m() on linear { param l[out] ~ gaussian(0.02); y' = y + l }

    Right:

        method m() on linear { param l[out] ~ normal(0.02); y' = y + l }
    """

    code: ClassVar[str] = "PEFT260"
    title: ClassVar[str] = "unknown distribution"
    label: ClassVar[str] = "`{name}` is not a distribution"
    help: ClassVar[str] = "{hint}"
    name: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class DistributionArguments(Diagnostic):
    """A distribution is given too many or too few numbers, numbers that it cannot have,
    or a tensor that it cannot fill.

    `kaiming(a)` with a >= 0 and at least one axis, `normal(std)` with std > 0,
    `uniform(low, high)` with low < high, `orthogonal` for matrices.

    Wrong:

        method m() on linear { param l[out] ~ uniform(0.1); y' = y + l }

    Right:

        method m() on linear { param l[out] ~ uniform(-0.1, 0.1); y' = y + l }
    """

    code: ClassVar[str] = "PEFT261"
    title: ClassVar[str] = "a distribution does not fit"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "the form is `{form}`"
    problem: str
    form: str


@dataclass(frozen=True, kw_only=True)
class UnknownKnobType(Diagnostic):
    """A knob is declared with a type that does not exist.

    Wrong:

        method m(n: int = 2) on linear { param l[out] = 1; y' = n * l * y }

    Right:

        method m(n: count = 2) on linear { param l[out] = 1; y' = n * l * y }
    """

    code: ClassVar[str] = "PEFT262"
    title: ClassVar[str] = "unknown knob type"
    label: ClassVar[str] = "`{name}` is not a type"
    help: ClassVar[str] = "{hint}"
    name: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class BadDefault(Diagnostic):
    """The default of a knob is not a value of the knob's type.

    Wrong:

        method m(s: scale = -2) on linear { param l[out] = 1; y' = s * l * y }

    Right:

        method m(s: scale = 2) on linear { param l[out] = 1; y' = s * l * y }
    """

    code: ClassVar[str] = "PEFT263"
    title: ClassVar[str] = "a default that does not fit"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "{hint}"
    problem: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class DefaultCycle(Diagnostic):
    """The defaults of knobs refer to each other in a circle.

    Wrong:

        method m(a = e, e = a) on linear { param l[out] = 0; y' = a * y + e * l }

    Right:

        method m(a = 2, e = a) on linear { param l[out] = 0; y' = a * y + e * l }
    """

    code: ClassVar[str] = "PEFT264"
    title: ClassVar[str] = "defaults in a circle"
    label: ClassVar[str] = "{chain}"
    chain: str


@dataclass(frozen=True, kw_only=True)
class UnknownPlace(Diagnostic):
    """`on` is followed by something that is not a kind of place.

    Places are `linear`, `hidden` and `norm`, and for a method that is given a whole
    sublayer, one linear of it: `ffn.down`, `ffn.up`, `attn.o`, ...

    Wrong:

        method m() on lineer { param l[out] = 1; y' = l * y }

    Right:

        method m() on linear { param l[out] = 1; y' = l * y }
    """

    code: ClassVar[str] = "PEFT265"
    title: ClassVar[str] = "unknown place"
    label: ClassVar[str] = "`{name}` is not a place"
    help: ClassVar[str] = "{hint}"
    name: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class UnknownFact(Diagnostic):
    """A `where` names neither a fact of the place nor a knob that is a flag or a count.

    `linear` and `norm` sites can be `biased`; `linear`, `hidden` and `attention` sites
    are `causal` if tokens there see no later tokens.  Otherwise a flag of the method is
    asked for, a `count` that is not 0, or a word: `positions is keep`.

    Wrong:

        method m() on linear where bias { param l[out] = 0; bias' = bias + l }

    Right:

        method m() on linear where biased { param l[out] = 0; bias' = bias + l }
    """

    code: ClassVar[str] = "PEFT266"
    title: ClassVar[str] = "unknown condition"
    label: ClassVar[str] = "`{name}` is neither a fact of `{place}` nor a flag or count"
    help: ClassVar[str] = "{hint}"
    name: str
    place: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class ClauseUnreachable(Diagnostic):
    """A clause is never used: an earlier one takes every site that it could have.

    The first clause whose place and `where` fit a site applies to it.  Put the special
    case first.

    Wrong:

        method m()
        on linear { param l[out] = 0; y' = y + l }
        on linear where biased { param l[out] = 0; bias' = bias + l }

    Right:

        method m()
        on linear where biased { param l[out] = 0; bias' = bias + l }
        on linear { param l[out] = 0; y' = y + l }
    """

    code: ClassVar[str] = "PEFT267"
    title: ClassVar[str] = "a clause that is never used"
    label: ClassVar[str] = "the clause on line {line} takes every such site"
    help: ClassVar[str] = "{hint}"
    line: int
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class WrappedUnused(Diagnostic):
    """A wrapper must call what it wraps in every clause, and wraps one method only.

    Wrong:

        method m(inner: method) on linear { param l[out] = 1; y' = l * y }

    Right:

        method m(inner: method) on linear { param l[out] = 1; y' = l * inner(y) }
    """

    code: ClassVar[str] = "PEFT268"
    title: ClassVar[str] = "a wrapper that does not wrap"
    label: ClassVar[str] = "{problem}"
    problem: str


@dataclass(frozen=True, kw_only=True)
class AxisElsewhere(Diagnostic):
    """A default uses an axis that not every place of the method has.

    `linear` has the axes `in` and `out`; `hidden` and `norm` have `hidden`.  The
    numbers of `b` and `t` are never known beforehand.

    Wrong:

        method m(s: scale = hidden) on linear { param l[out] = 1; y' = s * l * y }

    Right:

        method m(s: scale = in) on linear { param l[out] = 1; y' = s * l * y }
    """

    code: ClassVar[str] = "PEFT269"
    title: ClassVar[str] = "a default uses an axis of another place"
    label: ClassVar[str] = "`on {place}` has no number `{axis}`"
    axis: str
    place: str
