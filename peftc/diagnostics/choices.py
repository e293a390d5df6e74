"""Errors of knobs that are one of some words (278) or follow from others (290).

In: nothing.  Out: the diagnostic class that `peftc.expr.check` raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class BadChoice(Diagnostic):
    """A knob whose values are words, or a condition on one, is not as it should be.

    The words of such a knob are written out, `positions: shift | keep = shift`; they
    differ, and the default is one of them.  `where positions is keep` and
    `choose(positions is keep, a, b)` ask for one of them.

    Wrong:

        method m(at: first | last = fist) on linear {
          param a[out] = 1
          y' = choose(at is lst, a * y, y)
        }

    Right:

        method m(at: first | last = first) on linear {
          param a[out] = 1
          y' = choose(at is last, a * y, y)
        }
    """

    code: ClassVar[str] = "PEFT278"
    title: ClassVar[str] = "not one of the words of a knob"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "{hint}"
    problem: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class NothingToDeriveFrom(Diagnostic):
    """A `derived` knob has nothing that it follows from.

    A knob of the type `derived` is a size that is worked out at each site and that no
    spec can give.  Its default says from what: other knobs, the axes of the site, and
    `sites`, the number of sites of the application.

    Wrong:

        method m(n: derived) on linear {
          param v[n] = 0
          y' = y + sum(v) * y
        }

    Right:

        method m(n: derived = power_of_two(out * in)) on linear {
          param v[n] = 0
          y' = y + sum(v) * y
        }
    """

    code: ClassVar[str] = "PEFT290"
    title: ClassVar[str] = "a derived knob without a value"
    label: ClassVar[str] = "nothing says what `{name}` is"
    help: ClassVar[str] = "write what it follows from: `{name}: derived = ...`"
    name: str
