"""Errors of learning rates, optimizers and teachers (686, 696 to 699).

In: nothing.  Out: the diagnostic classes that controls of `peftc.training` raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class SeveralOfAKind(Diagnostic):
    """Two controls want to decide the same thing of the whole run.

    One schedule sets the learning rate of a run, and one optimizer makes its steps.
    Two schedules would be multiplied, which nobody means.

    Wrong:

        lora(q, v) + schedule(kind=linear) + stlr()

    Right:

        lora(q, v) + stlr()
    """

    code: ClassVar[str] = "PEFT696"
    title: ClassVar[str] = "two controls for one thing"
    label: ClassVar[str] = "`{one}` and `{other}` both set the {what} of the run"
    one: str
    other: str
    what: str


@dataclass(frozen=True, kw_only=True)
class NothingFits(Diagnostic):
    """A control is about tensors by name, and no trained tensor has such a name.

    Names are those that plans show: method and tensor, as in `lora.B`; `*` stands for
    anything.

    Wrong, since a bias is called `bitfit.d`:

        bitfit(q) + loraplus()

    Right:

        lora(q, v) + loraplus()
    """

    code: ClassVar[str] = "PEFT697"
    title: ClassVar[str] = "no tensor has this name"
    label: ClassVar[str] = "`{control}`: no trained tensor is called `{what}`"
    notes: ClassVar[tuple[str, ...]] = ("there are {known}",)
    control: str
    what: str
    known: str


@dataclass(frozen=True, kw_only=True)
class OtherOptimizer(Diagnostic):
    """The spec names the optimizer, and the loop steps with another one.

    `optimizer(...)` in a spec is part of how its methods are trained.

    Fix: `optimizer = run.make_optimizer(lr=...)` in a loop of your own, which makes the
    one that the spec asks for; with transformers' Trainer `attach` does it. Or leave
    `optimizer(...)` out of the spec.
    """

    code: ClassVar[str] = "PEFT698"
    title: ClassVar[str] = "another optimizer than the spec's"
    label: ClassVar[str] = "the spec asks for {planned}, the loop uses {used}"
    planned: str
    used: str


@dataclass(frozen=True, kw_only=True)
class TeacherUnfit(Diagnostic):
    """A model cannot learn from this teacher, or not in this way.

    Distillation compares what two models say about the same tokens. They need the same
    vocabulary, and labels, which tell the positions that count; classes are compared
    by their probabilities, numbers by `kind=mse` only.

    Fix: a teacher with the same tokenizer, as a folder or as
    `Run(model, teachers={"name": model})`; `vocab=common` if one vocabulary is the
    other and some more; `alpha` between 0 and 1; `T` of 1 or more.
    """

    code: ClassVar[str] = "PEFT699"
    title: ClassVar[str] = "this teacher does not fit"
    label: ClassVar[str] = "teacher `{teacher}`: {problem}"
    teacher: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class LayersUnfit(Diagnostic):
    """Layers of a model and of its teacher cannot be compared as a spec says.

    `distill(hidden="2:4*0.5")` compares what layer 2 of the model gives with what layer
    4 of the teacher gives; layers are counted from 1, of hidden states 0 is what the
    first layer reads, and -1 is the last. `attn` compares probabilities of attention,
    head by head; only attention that is spelt out gives any, and with dropout or sinks
    they do not sum to 1.

    Wrong, in a model with 12 layers:

        lora(q, v) + distill(teacher="big", hidden="13:24")

    Right:

        lora(q, v) + distill(teacher="big", hidden="12:24")
    """

    code: ClassVar[str] = "PEFT686"
    title: ClassVar[str] = "layers that cannot be compared"
    label: ClassVar[str] = "`{option}`: {problem}"
    help: ClassVar[str] = "{hint}"
    option: str
    problem: str
    hint: str = ""
