"""The canonical text of a plan, and its hash.

In: a `Plan`.  Out: lines that `plan.parse` reads back to an equal plan.  Deterministic:
no addresses, no set order, numbers by `repr`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import fields
from textwrap import indent
from typing import TYPE_CHECKING

from peftc.codegen.text import program_text
from peftc.syntax.print import print_method
from peftc.view import Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftc.plan.types import (
        AddedTensor,
        Application,
        Knob,
        Plan,
        Rewrite,
        StoredWeight,
    )

HEADER = "peftc-plan 1"
PLAIN = re.compile(r"[\w.:#*/+-]+")
SITE_DEFAULTS = {f.name: f.default for f in fields(Site)}


def plan_text(plan: Plan) -> str:
    """The whole plan."""
    return "\n".join(_lines(plan)) + "\n"


def plan_hash(plan: Plan) -> str:
    """SHA-256 of the text, as hex."""
    return hashlib.sha256(plan_text(plan).encode()).hexdigest()


def _lines(plan: Plan) -> Iterator[str]:
    model = plan.model
    yield HEADER
    yield (
        f"model {word(model.architecture)} parameters={model.parameters}"
        f" bytes={model.bytes} layers={model.layers} config={word(model.config_hash)}"
    )
    yield f"seed {plan.seed}"
    yield f"dtype {plan.dtype}"
    if plan.memory:
        yield f"memory {_pairs(vars(plan.memory))}"
    yield from (f"note {json.dumps(note)}" for note in plan.notes)
    yield "methods"
    yield from (indent(print_method(m).rstrip("\n"), "  ") for m in plan.methods)
    for application in plan.whole:
        yield from _application(application)
    for rewrite in plan.rewrites:
        yield from _rewrite(rewrite)
    for stored in plan.stores:
        yield from _store(stored)


def _store(stored: StoredWeight) -> Iterator[str]:
    shape = ", ".join(map(str, stored.shape))
    facts = {"dtype": stored.dtype, "transposed": stored.transposed}
    facts |= {"by": stored.method, "from": stored.origin}
    yield f"store {word(stored.weight)} [{shape}] ~ {stored.form} is {_pairs(facts)}"
    for part in stored.parts:
        yield f"  {part.dtype} {part.name} [{', '.join(map(str, part.shape))}]"


def _rewrite(rewrite: Rewrite) -> Iterator[str]:
    yield f"site {word(rewrite.site.key)}"
    yield f"  {site_text(rewrite.site)}"
    for application in rewrite.applications:
        yield indent("\n".join(_application(application)), "  ")
    if rewrite.start:
        yield f"  start {rewrite.start}"
    merge = rewrite.merge
    yield f"  merge {merge.kind}" + f" {json.dumps(merge.reason)}" * bool(merge.reason)
    for program in rewrite.programs:
        yield "  program"
        yield indent(program_text(program).rstrip("\n"), "    ")


def site_text(site: Site) -> str:
    """The facts of a site but its key; what has its default value is left out."""
    facts = vars(site) | {"key": "", "rows": _rows(site), "sizes": ""}
    facts["taps"] = ",".join(site.taps) or ()
    del facts["key"], facts["sizes"]
    said = {n: v for n, v in facts.items() if v != SITE_DEFAULTS[n] and v is not None}
    sizes = " ".join(f"{axis}={n}" for axis, n in site.sizes)
    return f"sizes {sizes} is {_pairs(said)}"


def _rows(site: Site) -> str | None:
    if site.rows is None:
        return None
    return ",".join(f"{start}:{stop}" for start, stop in site.rows)


def _application(application: Application) -> Iterator[str]:
    knobs = "".join(f" {n}={knob_text(v)}" for n, v in application.knobs)
    group = f" group={word(application.group)}" if application.group else ""
    yield (
        f"apply {application.instance} method={application.method}"
        f" clause={application.clause} from={word(application.origin)}{group}"
        f" with{knobs}"
    )
    yield from (f"  {_tensor(t)}" for t in application.tensors)
    for part in application.wraps:
        yield indent("\n".join(_application(part)), "  ")


def _tensor(tensor: AddedTensor) -> str:
    shape = ", ".join(map(str, tensor.shape))
    shared = f" shared={word(tensor.shared)}" if tensor.shared else ""
    return f"{tensor.kind} {tensor.name} [{shape}]{shared} ~ {tensor.init}"


def _pairs(values: dict[str, object]) -> str:
    return " ".join(f"{n}={_value(v)}" for n, v in values.items())


def _value(value: object) -> str:
    return word(value) if isinstance(value, str) else json.dumps(value)


def knob_text(value: Knob) -> str:
    """A knob's value such that its type can be read back."""
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


def word(text: str) -> str:
    """A text as one word: itself if plain, else in JSON quotes."""
    return text if PLAIN.fullmatch(text) else json.dumps(text)
