"""Errors of methods that add rows (273 to 280).

In: nothing.  Out: the diagnostic classes that `peftc.expr` and `peftc.resolve` raise
about rows of keys and values or among the tokens, about positions, and about finding
the attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class RowsShape(Diagnostic):
    """A rule for `k` or `v` does not give rows of keys or values.

    The rows that a method adds are a matrix of one axis of any size and the axis `key`
    (or `value`); they may differ from sample to sample and from token to token.

    Wrong:

        method m(p: size = 10) on attention {
          param K[key, p] ~ normal(0.02), V[p, value] ~ normal(0.02)
          k' = K
          v' = V
        }

    Right:

        method m(p: size = 10) on attention {
          param K[p, key] ~ normal(0.02), V[p, value] ~ normal(0.02)
          k' = K
          v' = V
        }
    """

    code: ClassVar[str] = "PEFT273"
    title: ClassVar[str] = "no rows of keys or values"
    label: ClassVar[str] = "`{target}'` must be {wanted}, this is {axes}"
    help: ClassVar[str] = "{hint}"
    target: str
    wanted: str
    axes: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class RowsUnpaired(Diagnostic):
    """Keys without values, or another number of keys than of values.

    Each row that a query attends to is a key and a value, so a clause rules both, with
    the same axis of rows.

    Wrong:

        method m(p: size = 10) on attention { param K[p, key] ~ normal(0.02); k' = K }

    Right:

        method m(p: size = 10) on attention {
          param K[p, key] ~ normal(0.02), V[p, value] ~ normal(0.02)
          k' = K
          v' = V
        }
    """

    code: ClassVar[str] = "PEFT274"
    title: ClassVar[str] = "keys and values do not pair"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "every row is a key and a value: rule both"
    problem: str


@dataclass(frozen=True, kw_only=True)
class StartNotShifted(Diagnostic):
    """A rule for `start` is not `start` and a number.

    `start` is the position of the first token.  A method moves it by a whole number, 0
    or more, that is known before the model runs.

    Wrong:

        method m() on attention { start' = 2 * start }

    Right:

        method m() on attention { start' = start + 10 }
    """

    code: ClassVar[str] = "PEFT275"
    title: ClassVar[str] = "positions are not moved by a number"
    label: ClassVar[str] = "`start'` is `start` plus a whole number, 0 or more{found}"
    found: str = ""


@dataclass(frozen=True, kw_only=True)
class WrappedRows(Diagnostic):
    """What a wrapper wraps at an attention gives no rows, or those of several methods.

    A wrapper reads the rows of what it wraps, `inner(k)` and `inner(v)`.  Rows of
    several methods stand one after the other and are no single value, so each is
    wrapped by itself: not `gate(prefix(p=5) + prefix(p=7))` but
    `gate(prefix(p=5)) + gate(prefix(p=7))`.
    """

    code: ClassVar[str] = "PEFT276"
    title: ClassVar[str] = "what is wrapped at an attention"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "{hint}"
    problem: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class AttentionNotFound(Diagnostic):
    """A method rewrites the attention call that a selector leads to, and the model's
    graph does not tell where that call is.

    `peftc plan` lists what could not be resolved.  Either leave these layers out with
    `@ layers(...)`, or select the attentions that were found: `prefix(attention)`.
    """

    code: ClassVar[str] = "PEFT277"
    title: ClassVar[str] = "no attention call was found"
    label: ClassVar[str] = "`{target}` leads to no attention call at {site}"
    notes: ClassVar[tuple[str, ...]] = ("{reason}",)
    help: ClassVar[str] = "{hint}"
    target: str
    site: str
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class InputRowsShape(Diagnostic):
    """A rule for `rows` at an input does not give rows.

    What a method puts among the embedded tokens is a matrix of one axis of any size and
    the axis `hidden`.  It is the same for all samples.

    Wrong:

        method m(p: size = 10) on input {
          param P[hidden, p] ~ normal(0.02)
          rows' = P
        }

    Right:

        method m(p: size = 10) on input {
          param P[p, hidden] ~ normal(0.02)
          rows' = P
        }
    """

    code: ClassVar[str] = "PEFT279"
    title: ClassVar[str] = "no rows among the tokens"
    label: ClassVar[str] = "`rows'` must be [rows, hidden], this is {axes}"
    help: ClassVar[str] = "{hint}"
    axes: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class PlaceNotTold(Diagnostic):
    """A rule for `before` is no knob of the type `places`, or there are no rows.

    `before' = at` says before which token the rows of a clause stand.  That has to be
    known before the model runs, so it is the value of a knob, and it is about the rows
    of the same clause.

    Wrong:

        method m(p: size = 10) on input {
          param P[p, hidden] ~ normal(0.02)
          rows' = P
          before' = p
        }

    Right:

        method m(p: size = 10, at: places = auto) on input {
          param P[p, hidden] ~ normal(0.02)
          rows' = P
          before' = at
        }
    """

    code: ClassVar[str] = "PEFT280"
    title: ClassVar[str] = "no place of rows"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "{hint}"
    problem: str = "`before'` takes a knob of the type `places`, and nothing else"
    hint: str = "declare one: `at: places = auto`"
