"""Errors inside equations: names, axes and functions of a rule (230-249).

In: nothing.  Out: the diagnostic classes that `peftc.expr.elaborate` raises.  Errors of
a definition as a whole are in `definitions.py`, errors of knobs in `knobs.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class UnknownVariable(Diagnostic):
    """An equation uses a name that nothing defines.

    Names come from the site (`W`, `x`, `y`, `h`, ...), from the tensors and local names
    above in the same clause, from the knobs, and from the site's axes.

    Wrong:

        method m(a = 2) on linear { param l[out] = 0; y' = a * y + a * k }

    Right:

        method m(a = 2) on linear { param l[out] = 0; y' = a * y + a * l }
    """

    code: ClassVar[str] = "PEFT230"
    title: ClassVar[str] = "unknown name in an equation"
    label: ClassVar[str] = "nothing here is called `{name}`"
    help: ClassVar[str] = "{hint}"
    name: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class UnknownFunction(Diagnostic):
    """What stands before the parentheses is neither a function nor a tensor.

    Wrong:

        method m() on hidden { param D[hidden, hidden] = 0; h' = h + gleu(D(h)) }

    Right:

        method m() on hidden { param D[hidden, hidden] = 0; h' = h + gelu(D(h)) }
    """

    code: ClassVar[str] = "PEFT231"
    title: ClassVar[str] = "unknown function"
    label: ClassVar[str] = "`{name}` is neither a function nor a tensor"
    help: ClassVar[str] = "{hint}"
    name: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class WrongArguments(Diagnostic):
    """A function is called with arguments it does not take.

    Each built-in has a fixed form: `kron(A, B)`, `drop(x, p)`, `norm(W, in)`,
    `reshape(A, [out, in])`, `choose(flag, a, b)`.

    Wrong:

        method m(a = 4) on linear {
          param A[a, a] ~ kaiming(5), B[out/a, in/a] = 0
          W' = W + kron(A) @ B
        }

    Right:

        method m(a = 4) on linear {
          param A[a, a] ~ kaiming(5), B[out/a, in/a] = 0
          W' = W + kron(A, B)
        }
    """

    code: ClassVar[str] = "PEFT232"
    title: ClassVar[str] = "wrong arguments of a function"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "the form is `{form}`"
    problem: str
    form: str


@dataclass(frozen=True, kw_only=True)
class InnerAxesDiffer(Diagnostic):
    """`A @ B` sums over the last axis of A and the first of B; these must be one axis.

    Axes are the same when their size expressions are, not when their numbers happen to
    agree: with `A[r, in]` and `B[out, r]`, `B @ A` is `[out, in]`, and `A @ B` would
    multiply `in` with `out`.

    Wrong:

        method m(r = 8) on linear {
          param A[r, in] ~ kaiming(5), B[r, out] = 0
          W' = W + B @ A
        }

    Right:

        method m(r = 8) on linear {
          param A[r, in] ~ kaiming(5), B[r, out] = 0
          W' = W + B.T @ A
        }
    """

    code: ClassVar[str] = "PEFT233"
    title: ClassVar[str] = "inner axes differ"
    label: ClassVar[str] = "{left} @ {right} contracts `{last}` with `{first}`"
    help: ClassVar[str] = "{hint}"
    left: str
    right: str
    last: str
    first: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class CannotLineUp(Diagnostic):
    """`+ - * /` match operands by the names of their axes, and these do not match.

    Both have the same axes, or the axes of one are among those of the other and occur
    there once.  There is no broadcasting by position.

    Wrong:

        method m() on linear { param l[in] = 1; y' = l * y }   # y is [b, t, out]

    Right:

        method m() on linear { param l[out] = 1; y' = l * y }
    """

    code: ClassVar[str] = "PEFT234"
    title: ClassVar[str] = "operands cannot be lined up"
    label: ClassVar[str] = "{small} against {large}: {problem}"
    help: ClassVar[str] = "{hint}"
    small: str
    large: str
    problem: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class ComposeNeedsMatrices(Diagnostic):
    """`@` composes matrices; it is not applied to activations.

    A matrix is applied to an activation by a call, `M(x)`, which acts on the last axis.

    Wrong:

        method m() on linear { param A[out, in] = 0; y' = y + A @ x }

    Right:

        method m() on linear { param A[out, in] = 0; y' = y + A(x) }
    """

    code: ClassVar[str] = "PEFT235"
    title: ClassVar[str] = "`@` composes matrices"
    label: ClassVar[str] = "here it stands between {left} and {right}"
    help: ClassVar[str] = "{hint}"
    left: str
    right: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class NeedsAxes(Diagnostic):
    """An operation needs a matrix (or a vector) and got something else.

    `.T`, `kron`, `blockdiag`, `cayley` work on matrices, `diag` on a vector.

    Wrong:

        method m() on linear { param l[out] = 1; W' = l.T * W }

    Right:

        method m() on linear { param l[out] = 1; W' = l * W }
    """

    code: ClassVar[str] = "PEFT236"
    title: ClassVar[str] = "wrong number of axes"
    label: ClassVar[str] = "{operation} needs {wanted}, this is {axes}"
    help: ClassVar[str] = "{hint}"
    operation: str
    wanted: str
    axes: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class CannotApply(Diagnostic):
    """`M(x)` needs the last axis of M to be the last axis of x.

    A matrix `M[n, k]` takes `x[.., k]` to `[.., n]`; a vector `w[k]` to one number per
    token.

    Wrong:

        method m(d = 8) on hidden { param D[hidden, d] = 0; h' = h + D.T(D(h)) }

    Right:

        method m(d = 8) on hidden { param D[hidden, d] = 0; h' = h + D(D.T(h)) }
    """

    code: ClassVar[str] = "PEFT237"
    title: ClassVar[str] = "a tensor cannot be applied to this"
    label: ClassVar[str] = "{matrix} applied to {value}: the last axes must agree"
    help: ClassVar[str] = "{hint}"
    matrix: str
    value: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class IndexNotBound(Diagnostic):
    """`P[k]` needs a `k` that an enclosing `sum[k: n]`, `blockdiag[k: n]`, ... binds.

    Wrong:

        method m(n = 4) on linear { param P[n, out, in]; W' = W + P[k] }

    Right:

        method m(n = 4) on linear { param P[n, out, in]; W' = W + sum[k: n](P[k]) }
    """

    code: ClassVar[str] = "PEFT238"
    title: ClassVar[str] = "an index that nothing binds"
    label: ClassVar[str] = "`{name}` is not bound here"
    help: ClassVar[str] = "{hint}"
    name: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class IndexRange(Diagnostic):
    """An index runs over a range that is not the axis it stands for.

    `sum[k: n](P[k])` takes k over `n`; the first axis of P must be `n` as well.

    Wrong:

        method m(n = 4, r = 4) on linear {
          param P[n, out, r] = 0, A[r, in] ~ kaiming(5)
          W' = W + sum[k: r](P[k]) @ A
        }

    Right:

        method m(n = 4, r = 4) on linear {
          param P[n, out, r] = 0, A[r, in] ~ kaiming(5)
          W' = W + sum[k: n](P[k]) @ A
        }
    """

    code: ClassVar[str] = "PEFT239"
    title: ClassVar[str] = "an index does not fit the axis"
    label: ClassVar[str] = "{problem}"
    problem: str


@dataclass(frozen=True, kw_only=True)
class BinderUnused(Diagnostic):
    """The index of a binder does nothing in its body, or hides another name.

    `sum[k: n](A)` would only multiply A by n.

    Wrong:

        method m(n = 4) on linear {
          param P[n, out, in] = 0
          W' = W + norm2(P) * sum[k: n](W)
        }

    Right:

        method m(n = 4) on linear { param P[n, out, in]; W' = W + sum[k: n](P[k]) }
    """

    code: ClassVar[str] = "PEFT240"
    title: ClassVar[str] = "a binder whose index is of no use"
    label: ClassVar[str] = "{problem}"
    problem: str


@dataclass(frozen=True, kw_only=True)
class NotASize(Diagnostic):
    """An axis must be a size: the site's axes, knobs of type `size`, whole numbers, and
    their sums, products and quotients.

    Wrong:

        method m(s: scale = 2) on linear { param A[s, in] = 0; W' = W @ (A.T @ A) }

    Right:

        method m(s: size = 2) on linear { param A[s, in] = 0; W' = W @ (A.T @ A) }
    """

    code: ClassVar[str] = "PEFT241"
    title: ClassVar[str] = "not a size"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "{hint}"
    problem: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class DividedBySum(Diagnostic):
    """A size is divided by a sum of sizes.

    Sizes are compared symbolically before any number is known, which is decidable for
    sums of products and quotients of names, not for quotients of sums.  Make the
    quotient a knob: `d: size = hidden / (r + 1)`.

    Wrong:

        method m(r = 4) on hidden {
          param D[hidden/(r + 1), hidden] = 0
          h' = h + D.T(D(h))
        }

    Right:

        method m(r = 4, d: size = hidden / (r + 1)) on hidden {
          param D[d, hidden] = 0
          h' = h + D.T(D(h))
        }
    """

    code: ClassVar[str] = "PEFT242"
    title: ClassVar[str] = "a size is divided by a sum"
    label: ClassVar[str] = "`{divisor}` is a sum of sizes"
    help: ClassVar[str] = "give the quotient a name: a knob with this default"
    divisor: str


@dataclass(frozen=True, kw_only=True)
class ReshapeChangesCount(Diagnostic):
    """`reshape` keeps the elements, so the product of the sizes must stay the same.

    Wrong:

        method m() on linear { param v[out] = 0; W' = W + reshape(v, [out, in]) }

    Right:

        method m() on linear { param v[out*in] = 0; W' = W + reshape(v, [out, in]) }
    """

    code: ClassVar[str] = "PEFT243"
    title: ClassVar[str] = "reshape changes the number of elements"
    label: ClassVar[str] = "{before} cannot become {after}"
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class NoSuchAxis(Diagnostic):
    """A reduction names an axis that its operand does not have, or has twice.

    Wrong:

        method m() on linear { param l[out] = 1; W' = l / norm(l, in) * W }

    Right:

        method m() on linear { param l[out] = 1; W' = l / norm(W, in) * W }
    """

    code: ClassVar[str] = "PEFT244"
    title: ClassVar[str] = "no such axis"
    label: ClassVar[str] = "{axes} has {why} `{axis}`"
    axes: str
    why: str
    axis: str


@dataclass(frozen=True, kw_only=True)
class NotANumber(Diagnostic):
    """A number is wanted that is known before any tensor is: one made of knobs, sizes
    and literals.

    Wrong:

        method m(p = 10%) on linear { param k[in] = 1; x' = p * drop(x, k) }

    Right:

        method m(p = 10%) on linear { param k[in] = 1; x' = k * drop(x, p) }
    """

    code: ClassVar[str] = "PEFT245"
    title: ClassVar[str] = "not a number"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "{hint}"
    problem: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class CannotCompute(Diagnostic):
    """A number made of knobs and sizes has no value: a division by zero, the logarithm
    of a negative number, or something too large.

    Wrong:

        method m() on linear { param l[out] = 0; y' = y + l / (2 - 2) }

    Right:

        method m() on linear { param l[out] = 0; y' = y + l / (2 + 2) }
    """

    code: ClassVar[str] = "PEFT246"
    title: ClassVar[str] = "this number cannot be computed"
    label: ClassVar[str] = "{problem}"
    problem: str


@dataclass(frozen=True, kw_only=True)
class NotAtThisPlace(Diagnostic):
    """An equation reads a value that this kind of site, or this rule, does not have.

    A `linear` has `W`, `bias`, `x` and `y`; a `hidden` edge has `h`, the sublayer's
    input `u` and the normed value `n`; a `norm` has its gain `g` and its offset `c`.
    A rule for a weight cannot read activations, and a rule for `x` cannot read `y`,
    which is computed from it.

    Wrong:

        method m() on linear { param l[out] = 1; y' = l * h }

    Right:

        method m() on linear { param l[out] = 1; y' = l * y }
    """

    code: ClassVar[str] = "PEFT247"
    title: ClassVar[str] = "no such value here"
    label: ClassVar[str] = "{problem}"
    problem: str


@dataclass(frozen=True, kw_only=True)
class WrappedMisused(Diagnostic):
    """A knob of type `method` stands for a whole method and is only called, with the
    value it rewrites.

    Wrong:

        method m(inner: method) on linear { param c[] = 1; y' = c * inner }

    Right:

        method m(inner: method) on linear { param c[] = 1; y' = c * inner(y) }
    """

    code: ClassVar[str] = "PEFT248"
    title: ClassVar[str] = "a wrapped method is misused"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "write `{knob}({example})`"
    problem: str
    knob: str
    example: str


@dataclass(frozen=True, kw_only=True)
class BranchesDiffer(Diagnostic):
    """The two values of a `choose` have different axes.

    Wrong:

        method m(f = true) on linear { param l[out] = 1; y' = y + choose(f, l, y) }

    Right:

        method m(f = true) on linear { param l[out] = 1; y' = choose(f, y + l, y) }
    """

    code: ClassVar[str] = "PEFT249"
    title: ClassVar[str] = "the branches of `choose` differ"
    label: ClassVar[str] = "if true {first}, otherwise {second}"
    first: str
    second: str
