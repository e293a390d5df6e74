"""Errors of training controls (295 to 299) and of training with them (686 to 699).

In: nothing.  Out: the diagnostic classes that `peftc.expr` and `peftc.training` raise
about `train` statements, and about running what they say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class UnknownControl(Diagnostic):
    """A `train` statement names a control that does not exist.

    What a method does between the steps of training is said by controls: `redraw`
    draws random numbers anew, and so on; docs/training.md lists them.

    Fix: a control of the list, or one of a package that offers it under the entry
    point `peftc.controls`.
    """

    code: ClassVar[str] = "PEFT295"
    title: ClassVar[str] = "unknown control"
    label: ClassVar[str] = "there is no control `{name}`"
    help: ClassVar[str] = "{hint}"
    name: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class ControlOperands(Diagnostic):
    """A control is given other tensors than it takes.

    What a control works on stands first, in its order; its options have names.

    Wrong:

        method m() on linear { param a[out] = 0; y' = y + a; train redraw() }

    Right:

        method m() on linear { buffer a[out] = 0; y' = y + a; train redraw(a) }
    """

    code: ClassVar[str] = "PEFT296"
    title: ClassVar[str] = "wrong tensors of a control"
    label: ClassVar[str] = "{problem}"
    notes: ClassVar[tuple[str, ...]] = ("its form is `{form}`",)
    problem: str
    form: str


@dataclass(frozen=True, kw_only=True)
class ControlPlace(Diagnostic):
    """A control stands where it has nothing to work on.

    Some controls are about the whole model (a teacher, a schedule): they stand in a
    clause `on model`.  The others work on tensors of sites.  A clause `on model` has
    no site, so it has no tensors and no rules, and at least one control.

    Wrong:

        method m() on model { param a[8] = 0 }

    Right:

        method m(T: scale = 2) on model { train distill(T=T) }
    """

    code: ClassVar[str] = "PEFT297"
    title: ClassVar[str] = "nothing to control here"
    label: ClassVar[str] = "{problem}"
    problem: str


@dataclass(frozen=True, kw_only=True)
class LossReadsActivations(Diagnostic):
    """A term of the loss reads what flows through the model.

    Terms that methods add to the loss are computed from their tensors and the base's
    weights, once in a step; inputs and outputs of sites are gone by then.

    Wrong:

        method m() on linear {
          param a[out] = 0
          y' = y + a
          loss += norm2(y)
        }

    Right:

        method m() on linear {
          param a[out] = 0
          y' = y + a
          loss += norm2(a)
        }
    """

    code: ClassVar[str] = "PEFT298"
    title: ClassVar[str] = "a loss term reads activations"
    label: ClassVar[str] = "`{name}` is gone when the loss is computed"
    name: str


@dataclass(frozen=True, kw_only=True)
class ControlTensor(Diagnostic):
    """A control changes a tensor, and is given something else.

    `redraw`, for instance, writes into tensors; so it takes tensors that the clause
    declares, and those that it writes must be a `buffer`: what is trained is not
    overwritten.

    Fix: name a tensor that is declared in the clause, as `buffer` if it is not trained.
    """

    code: ClassVar[str] = "PEFT299"
    title: ClassVar[str] = "a control needs a tensor"
    label: ClassVar[str] = "`{control}` cannot work on `{text}`: {problem}"
    control: str
    text: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class StepsUnknown(Diagnostic):
    """A control needs the number of training steps, and nothing says it.

    Schedules and budgets are told in shares of the run.

    Fix: `model.peftc.training(steps=...)`; with transformers' Trainer give `max_steps`
    or a data set that has a length.
    """

    code: ClassVar[str] = "PEFT690"
    title: ClassVar[str] = "the number of steps is not known"
    label: ClassVar[str] = "`{control}` needs to know how long training is"
    help: ClassVar[str] = "give `steps=`"
    control: str


@dataclass(frozen=True, kw_only=True)
class NoCalibration(Diagnostic):
    """A control has to see data before training, and there is none.

    Scores by gradients or activations, for instance, are computed from some batches
    before the first step.

    Fix: `model.peftc.training(calibration=batches)`, batches as the model takes them;
    with transformers' Trainer the training data is taken.
    """

    code: ClassVar[str] = "PEFT691"
    title: ClassVar[str] = "no data to calibrate with"
    label: ClassVar[str] = "`{control}` needs batches before training"
    help: ClassVar[str] = "give `calibration=`"
    control: str


@dataclass(frozen=True, kw_only=True)
class WrongTrainingState(Diagnostic):
    """The state of the controls in a checkpoint is not that of this training plan.

    Averages, masks and counters of controls are saved beside the adapter.  They belong
    to the controls of one plan.

    Fix: resume with the spec that the checkpoint was made with.
    """

    code: ClassVar[str] = "PEFT692"
    title: ClassVar[str] = "another training state"
    label: ClassVar[str] = "{problem}"
    problem: str


@dataclass(frozen=True, kw_only=True)
class NotTrained(Diagnostic):
    """A step of a loop was left out, or came in the wrong order.

    A step is `loss`, `backward`, `before_optimizer`, the optimizer's step,
    `after_optimizer`; `with run.step(optimizer):` around the optimizer's step does
    the last part.

    Fix: keep the order of docs/training.md.
    """

    code: ClassVar[str] = "PEFT693"
    title: ClassVar[str] = "the loop lost its order"
    label: ClassVar[str] = "{problem}"
    problem: str


@dataclass(frozen=True, kw_only=True)
class Unattended(Diagnostic):
    """A method asks for more than gradients, and the loop does not know of it.

    Some methods add terms to the loss, or do something between steps: draw numbers,
    choose masks.  A loop that does not run their training plan would train something
    else without a word.

    Fix: `peftc.training.attach(trainer)` before `trainer.train()`, or
    `peftc.training.Run(model)` in a loop of your own; docs/training.md shows both.
    To look at the model only, call `model.eval()` or use `torch.no_grad()`.
    """

    code: ClassVar[str] = "PEFT694"
    title: ClassVar[str] = "this would be trained without its training plan"
    label: ClassVar[str] = "methods of this model have controls or loss terms"
    help: ClassVar[str] = "start a `peftc.training.Run`, or `attach` the Trainer"


@dataclass(frozen=True, kw_only=True)
class NotInRun(Diagnostic):
    """What a control is told to do does not fit the length of the training run.

    A budget that is full for the first `tinit` steps and final in the last `tfinal`
    ones needs steps between them; what is told in steps may be more than there are.

    Fix: shorter phases, or phases in shares of the run: a number below 1.
    """

    code: ClassVar[str] = "PEFT695"
    title: ClassVar[str] = "a schedule does not fit the run"
    label: ClassVar[str] = "`{control}`: {problem}"
    control: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class NotCut(Diagnostic):
    """An export has to leave out places of an axis, and that would change the method.

    A control such as `allocate` sets elements of a vector to zero, and an export drops
    the places of its axis where that is so. They may be dropped if everything along
    the axis is multiplied by the vector, and if no number depends on the axis's size.

    Wrong, since the rest is scaled by the number of what is left:

        method m(r: size = 8) on linear {
          param P[out, r] ~ normal(1), l[r] = 0, Q[r, in] ~ normal(1)
          W' = W + 1 / r * P @ diag(l) @ Q
          train allocate(l, P, Q, target=4)
        }

    Right, with a size of its own for the scale:

        method m(first: size = 8, r: size = first) on linear {
          param P[out, r] ~ normal(1), l[r] = 0, Q[r, in] ~ normal(1)
          W' = W + 1 / first * P @ diag(l) @ Q
          train allocate(l, P, Q, target=4)
        }
    """

    code: ClassVar[str] = "PEFT322"
    title: ClassVar[str] = "an axis cannot be cut"
    label: ClassVar[str] = "`{method}` at {site}: {problem}"
    help: ClassVar[str] = "save the adapter instead of exporting it"
    method: str
    site: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class DegenerateScores(Diagnostic):
    """A mask is to be chosen by scores that are all zero in some tensor.

    Many methods start with one factor of zeros, so that the model starts unchanged.  Of
    such a tensor every magnitude is 0, and so is every gradient times value; the other
    factor gets no gradient at first, because what it gives is multiplied by the zeros.
    Compared with other tensors, the zeros would all be cut away.

    Fix: start the method with other values (`adapter(ffn, init=bert)`), choose the mask
    after some steps (`warmup=100`), choose it in each tensor by itself (`scope=local`,
    where equal scores are told apart at random), or use scores that need no values
    (`score=er`, `score=random`).
    """

    code: ClassVar[str] = "PEFT355"
    title: ClassVar[str] = "scores that tell nothing"
    label: ClassVar[str] = "all `{score}` scores that `{mask}` is chosen by are zero"
    help: ClassVar[str] = (
        "start with other values, or `warmup=...`, `scope=local`, `score=er`"
    )
    mask: str
    score: str


@dataclass(frozen=True, kw_only=True)
class BatchEntry(Diagnostic):
    """A batch does not say what it is about, as a method of the model asks.

    `train choose(...)` takes an entry of each batch, a whole number from 0: alone, or a
    tensor with the same number for every sample.

    Example: training `ipt_space` with batches that have no `task`.

    Fix: `run.loss({**batch, "task": 1})`, or a column of the data of this name.
    """

    code: ClassVar[str] = "PEFT689"
    title: ClassVar[str] = "a batch does not say what it is about"
    label: ClassVar[str] = "`{entry}`: {problem}"
    help: ClassVar[str] = "give every batch a whole number by this name"
    entry: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class Unreached(Diagnostic):
    """Something that is trained had no gradient in the first step; a warning.

    The loss of the first step does not depend on it: the batch has nothing for a part
    of the model, or the loop computes the loss around a module, as trainers do that
    multiply by the weight of the head themselves.  It stays as it is then.

    Example: `lora(head)` under a trainer with a fused loss.

    Fix: train it with a loss that the model computes, or leave it out of the spec.
    """

    code: ClassVar[str] = "PEFT700"
    title: ClassVar[str] = "trained tensors had no gradient in the first step"
    label: ClassVar[str] = "{count} of them, the first is `{first}`"
    first: str
    count: int


@dataclass(frozen=True, kw_only=True)
class LossNotFinite(Diagnostic):
    """The loss became infinite or not a number, and training stopped before the step.

    The batch was run once more, operation by operation, to find where that begins; if
    the place is a parameter, an earlier step of the optimizer has spoilt it.  Nothing
    was saved after that: the last checkpoint is whole.

    Fix: a smaller learning rate; a method that starts without effect; longer warm-up;
    a wider type, if the place is an operation that overflows; labels in every sample,
    if it is the loss.
    """

    code: ClassVar[str] = "PEFT688"
    title: ClassVar[str] = "the loss is not finite"
    label: ClassVar[str] = "at step {step}: {loss}"
    notes: ClassVar[tuple[str, ...]] = ("{place}", "{kept}")
    help: ClassVar[str] = "try a smaller learning rate"
    exit_code: ClassVar[int] = 5
    step: int
    loss: str
    place: str = ""
    kept: str = ""
