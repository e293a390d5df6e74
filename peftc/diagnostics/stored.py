"""Errors of running with weights that are kept in codes (450, 640 to 643).

In: nothing.  Out: the diagnostic classes that graph passes and `peftc.runtime` raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class CodesMissing(Diagnostic):
    """A part of the model reads a weight whose codes it was not given.

    A weight that is kept in codes has no values of its own.  The forward of a part of
    the model (an encoder that is called by itself, say) gets the codes of the modules
    inside it; a weight that it takes from elsewhere cannot be decoded there.

    Run the whole model, or store that weight as it was.
    """

    code: ClassVar[str] = "PEFT450"
    title: ClassVar[str] = "a stored weight cannot be decoded here"
    label: ClassVar[str] = "`{reader}` reads `{weight}`, whose codes are elsewhere"
    help: ClassVar[str] = "run the whole model"
    weight: str
    reader: str


@dataclass(frozen=True, kw_only=True)
class OriginalsGone(Diagnostic):
    """The base cannot be given back as it was: its weights are kept in codes only.

    That is what saves the memory.  `remove(decoded=True)` gives back a base whose
    weights are the decoded ones; `compile(..., keep_base=True)` keeps the originals in
    the memory of the CPU, and then `remove()` gives back every bit.

    Wrong:

        peftc.compile(model, "qlora()")
        model.peftc.remove()

    Right:

        peftc.compile(model, "qlora()", keep_base=True)
        model.peftc.remove()
    """

    code: ClassVar[str] = "PEFT640"
    title: ClassVar[str] = "the original weights are gone"
    label: ClassVar[str] = "{count} weights are kept in codes only"
    help: ClassVar[str] = "`remove(decoded=True)` gives the decoded weights"
    count: int


@dataclass(frozen=True, kw_only=True)
class FloatsGone(Diagnostic):
    """The base cannot be run as it was: its weights are kept in codes only.

    `distill(teacher="base_fp")` learns from the base without its codes. That takes the
    values before they were encoded.

    Wrong:

        peftc.compile(model, 'qlora() + distill(teacher="base_fp")')
        Run(model)

    Right: keep them in the memory of the CPU, from where they are copied for each of
    the teacher's forwards; or hand over a second model, as it was loaded.

        peftc.compile(model, 'qlora() + distill(teacher="base_fp")', keep_base=True)
        Run(model)

        peftc.compile(model, 'qlora() + distill(teacher="whole")')
        Run(model, teachers={"whole": whole})
    """

    code: ClassVar[str] = "PEFT643"
    title: ClassVar[str] = "the values before encoding are gone"
    label: ClassVar[str] = "{count} weights are kept in codes only"
    help: ClassVar[str] = "pass a teacher, or compile with `keep_base=True`"
    count: int


@dataclass(frozen=True, kw_only=True)
class NothingStored(Diagnostic):
    """A merge into codes is asked for where no weight is kept in codes.

    `merge(into_codes=True)` encodes the merged weights again.  Sites whose weights are
    stored as they are would lose nothing and gain nothing, so it is refused unless
    every merged weight is one of those in codes.

    Wrong:

        peftc.compile(model, "lora(q)")
        model.peftc.merge(into_codes=True)

    Right:

        peftc.compile(model, "quantize(q) + lora(q)")
        model.peftc.merge(into_codes=True)
    """

    code: ClassVar[str] = "PEFT641"
    title: ClassVar[str] = "not kept in codes"
    label: ClassVar[str] = "{weights} would be merged and {are} not kept in codes"
    help: ClassVar[str] = "`merge()` writes into the weights"
    weights: str
    are: str


@dataclass(frozen=True, kw_only=True)
class StoredDirectly(Diagnostic):
    """A module whose weight is kept in codes was called by itself.

    Only the model's forward decodes its weights; the module alone has none.  This holds
    while the methods are disabled, too.

    Wrong:

        with model.peftc.disabled():
            model.model.layers[0].mlp.up_proj(x)

    Right:

        with model.peftc.disabled():
            model(input_ids=ids)
    """

    code: ClassVar[str] = "PEFT642"
    title: ClassVar[str] = "a stored weight was about to be read as it is"
    label: ClassVar[str] = "`{module}` was called, but not by its model's forward"
    help: ClassVar[str] = "call the model itself"
    module: str
