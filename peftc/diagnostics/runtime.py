"""Errors of the compiled model while it is made, run and merged (600-619, 630-659).

In: nothing.  Out: the diagnostic classes of `peftc.runtime`; those of adapter files are
in `diagnostics.artefact`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class RanUnadapted(Diagnostic):
    """The compiled model was run by something that does not know its methods.

    The methods are put into the graph that `torch.compile` captures.  Under
    `torch.compiler.set_stance("force_eager")` or `"eager_on_recompile"`, with
    `TORCH_COMPILE_DISABLE=1`, or inside a foreign capture, the graph is not ours, and
    the model would silently compute the base.  Leave that mode, or, if the base is what
    you want, run it under `with model.peftc.disabled():`.
    """

    code: ClassVar[str] = "PEFT600"
    title: ClassVar[str] = "the model would have run without its methods"
    label: ClassVar[str] = "{why}"
    help: ClassVar[str] = (
        "to run the base on purpose use `with model.peftc.disabled():`"
    )
    exit_code: ClassVar[int] = 5
    why: str


@dataclass(frozen=True, kw_only=True)
class CalledDirectly(Diagnostic):
    """A module that holds adapted weights was called outside the compiled forward.

    For example `model.model(input_ids)` instead of `model(input_ids)`: the module's own
    forward knows nothing of the methods, so it would compute the base.
    Call the model itself, or the base on purpose under `model.peftc.disabled()`.
    """

    code: ClassVar[str] = "PEFT601"
    title: ClassVar[str] = "an adapted module ran outside the compiled model"
    label: ClassVar[str] = "`{module}` was called directly; it would not be adapted"
    help: ClassVar[str] = (
        "call the model itself, or use `with model.peftc.disabled():` for the base"
    )
    exit_code: ClassVar[int] = 5
    module: str


@dataclass(frozen=True, kw_only=True)
class MarkerMissing(Diagnostic):
    """A captured graph does not contain the parameters of the methods.

    The graph was split before peftc saw it: by DistributedDataParallel's optimizer (we
    switch it off; something switched it on again) or by another tool's backend.
    """

    code: ClassVar[str] = "PEFT602"
    title: ClassVar[str] = "the captured graph has no methods in it"
    label: ClassVar[str] = "the graph of {nodes} operations does not bind any parameter"
    help: ClassVar[str] = "do not split the model's forward before peftc compiles it"
    exit_code: ClassVar[int] = 5
    nodes: int


@dataclass(frozen=True, kw_only=True)
class ModuleReplaced(Diagnostic):
    """A module that owns an adapted weight was replaced after compiling.

    The new module has none of the added parameters.  Undo the replacement, or call
    `model.peftc.remove()`, replace, and compile again.
    """

    code: ClassVar[str] = "PEFT603"
    title: ClassVar[str] = "an adapted module was replaced"
    label: ClassVar[str] = "`{module}` is not the module that was compiled"
    help: ClassVar[str] = "remove the methods, replace the module, and compile again"
    exit_code: ClassVar[int] = 5
    module: str


@dataclass(frozen=True, kw_only=True)
class NotOneGraph(Diagnostic):
    """The forward cannot be captured as one graph.

    Methods are applied to the whole forward.  Something in it depends on the values of
    tensors or calls what torch cannot capture; the reason is torch's.  A hook or a
    print added to a module is a frequent cause.
    """

    code: ClassVar[str] = "PEFT604"
    title: ClassVar[str] = "the forward cannot be captured as one graph"
    label: ClassVar[str] = "{reason}"
    exit_code: ClassVar[int] = 5
    reason: str


@dataclass(frozen=True, kw_only=True)
class BadInterval(Diagnostic):
    """Blocks cannot be checkpointed at this interval.

    `checkpoint_every=1` checkpoints every block of the model, `2` every second one, and
    `0`, the default, none.  Where each layer has a graph of its own
    (`entries="layers"`), no graph has blocks in it: call the model's own
    `gradient_checkpointing_enable()` there.
    """

    code: ClassVar[str] = "PEFT618"
    title: ClassVar[str] = "not an interval of blocks"
    label: ClassVar[str] = "checkpoint_every={given}: {problem}"
    help: ClassVar[str] = "1 for every block, 2 for every second, 0 for none"
    exit_code: ClassVar[int] = 5
    given: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class TooManyGraphs(Diagnostic):
    """The forward was captured too often.

    Every kind of call (training or not, another number of dimensions, another argument
    that is None) is one graph; the limit guards against a value that changes with every
    call.  `torch._logging.set_logs(recompiles=True)` tells which one.
    """

    code: ClassVar[str] = "PEFT605"
    title: ClassVar[str] = "the forward was captured too often"
    label: ClassVar[str] = "{limit} graphs and no end"
    help: ClassVar[str] = "TORCH_LOGS=recompiles tells what changes from call to call"
    exit_code: ClassVar[int] = 5
    limit: int


@dataclass(frozen=True, kw_only=True)
class MarkersDisagree(Diagnostic):
    """One captured graph binds a site to two different sets of parameters.

    Two compiled models share a module, and one runs inside the other.  Compile the
    outer model only.
    """

    code: ClassVar[str] = "PEFT606"
    title: ClassVar[str] = "two compiled models overlap"
    label: ClassVar[str] = "`{name}` is bound to two different tensors"
    exit_code: ClassVar[int] = 5
    name: str


@dataclass(frozen=True, kw_only=True)
class UnknownBackend(Diagnostic):
    """The rewritten graph can be run by `eager`, `aot_eager` or `inductor`.

    `eager` runs it as it stands and is the default; `aot_eager` traces forward and
    backward first; `inductor` compiles both, which takes long once and needs a C++
    compiler.
    """

    code: ClassVar[str] = "PEFT607"
    title: ClassVar[str] = "unknown backend"
    label: ClassVar[str] = "`{backend}` is none of {known}"
    help: ClassVar[str] = "{hint}"
    backend: str
    known: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class AlreadyCompiled(Diagnostic):
    """The model already carries a compiled forward.

    Either peftc compiled it before, or `torch.compile` was applied to it or to a part.
    Several methods go into one spec (`a(q) + b(ffn)`); `model.peftc.remove()` takes the
    present ones out.  Apply `torch.compile` never or after peftc, not before.
    """

    code: ClassVar[str] = "PEFT610"
    title: ClassVar[str] = "the model is already compiled"
    label: ClassVar[str] = "{what}"
    help: ClassVar[str] = "call `model.peftc.remove()` first, or start from the base"
    what: str


@dataclass(frozen=True, kw_only=True)
class ShardedBase(Diagnostic):
    """A parameter of the base is sharded (a DTensor).

    Methods attached after sharding would stay local to each process, and the processes
    would train different models without a word.  Compile first, then shard.
    """

    code: ClassVar[str] = "PEFT611"
    title: ClassVar[str] = "the base is sharded"
    label: ClassVar[str] = "`{parameter}` is a DTensor"
    help: ClassVar[str] = "compile with peftc first, then call `fully_shard`"
    exit_code: ClassVar[int] = 3
    parameter: str


@dataclass(frozen=True, kw_only=True)
class NoPlaceForParameters(Diagnostic):
    """The module that owns a site cannot take the child that holds new parameters.

    It is the model itself, or a container that runs all of its children, or it has a
    child named `peftc` that is not ours.
    """

    code: ClassVar[str] = "PEFT612"
    title: ClassVar[str] = "no place for the parameters of a site"
    label: ClassVar[str] = "`{site}`: {why}"
    exit_code: ClassVar[int] = 3
    site: str
    why: str


@dataclass(frozen=True, kw_only=True)
class BaseDiffers(Diagnostic):
    """The model is not the one that the plan was made for.

    A module or weight that the plan names is missing, or has another shape.
    """

    code: ClassVar[str] = "PEFT613"
    title: ClassVar[str] = "the plan does not fit the model"
    label: ClassVar[str] = "`{site}`: {problem}"
    exit_code: ClassVar[int] = 3
    site: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class SharedAcrossDevices(Diagnostic):
    """A tensor shared by several sites would have to be on several devices.

    One storage serves all sites of a shared tensor.  Put those layers on one device, or
    use a method without shared tensors.
    """

    code: ClassVar[str] = "PEFT614"
    title: ClassVar[str] = "a shared tensor on two devices"
    label: ClassVar[str] = "`{tensor}` is shared by sites on {devices}"
    exit_code: ClassVar[int] = 3
    tensor: str
    devices: str


@dataclass(frozen=True, kw_only=True)
class NotFiniteHere(Diagnostic):
    """An operation made NaN or infinity out of finite values.

    `backend="watched"` runs a model operation by operation and stops at the first such
    one.  A parameter that holds such values was made so before: by a step of the
    optimizer that was too large, or by a damaged file.

    Fix: smaller steps or values at the place that is named; a wider type.
    """

    code: ClassVar[str] = "PEFT617"
    title: ClassVar[str] = "a value is not finite"
    label: ClassVar[str] = "{what} at {place}"
    exit_code: ClassVar[int] = 5
    what: str
    place: str


@dataclass(frozen=True, kw_only=True)
class NotMergeable(Diagnostic):
    """A rewrite cannot be written into the weights of the base.

    Only what is affine in the site's input is a weight: a nonlinearity, a gate that
    depends on the token, or anything between two linears is not.  Keep the adapter
    file, or remove these methods from the spec.
    """

    code: ClassVar[str] = "PEFT630"
    title: ClassVar[str] = "not mergeable"
    label: ClassVar[str] = "{reason} ({sites})"
    exit_code: ClassVar[int] = 5
    reason: str
    sites: str


@dataclass(frozen=True, kw_only=True)
class WrongState(Diagnostic):
    """An action that does not fit the state of the compiled model.

    Merging a merged model, unmerging one that is not, saving the adapter of a merged
    model, or using a handle whose methods were removed.
    """

    code: ClassVar[str] = "PEFT631"
    title: ClassVar[str] = "not possible now"
    label: ClassVar[str] = "{what}"
    help: ClassVar[str] = "{hint}"
    exit_code: ClassVar[int] = 5
    what: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class NoPlaceForBias(Diagnostic):
    """A merged model has a bias that its class does not know.

    Methods such as a learned output bias merge into a bias, which is created where the
    linear has none.  The merged model runs, but written to a folder and read by
    Transformers it would lose that bias without a word.  Keep the adapter file instead.
    """

    code: ClassVar[str] = "PEFT632"
    title: ClassVar[str] = "the merged model cannot be written as a plain one"
    label: ClassVar[str] = "`{architecture}` has no place for `{bias}`"
    exit_code: ClassVar[int] = 5
    bias: str
    architecture: str


@dataclass(frozen=True, kw_only=True)
class NoTokensOfText(Diagnostic):
    """Rows are to begin as the embeddings of a text, and it has no tokens here.

    `init="a text"` is turned into tokens by the tokenizer that lies in the folder the
    model was loaded from.  Without one, tokens are named by their numbers, which have
    to be below the number of tokens that the model has.

    Example: `prompt(p=4, init="Classify:")` on a model made from a configuration.

    Fix: `prompt(p=4, init="#71 #12")`, or load the model from a folder with its
    tokenizer.
    """

    code: ClassVar[str] = "PEFT343"
    title: ClassVar[str] = "no tokens of a text"
    label: ClassVar[str] = '"{text}": {problem}'
    help: ClassVar[str] = 'name tokens by number: `init="#71 #12"`'
    text: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class NoSavedValue(Diagnostic):
    """A tensor is to begin as another adapter's, which does not have it.

    `~ saved(knob)` reads the tensor of the same name from the adapter in a folder, or
    from several whose values are put one above the other along a first axis.  The names
    and the sizes have to be the same.

    Example: `ipt(p=8, d=4, decoder="prompts")` where `prompts` holds `prompt(p=8)`.

    Fix: name the folder of an adapter that was trained with the same sizes: here one of
    `ipt_space(p=8, d=4)`.
    """

    code: ClassVar[str] = "PEFT348"
    title: ClassVar[str] = "an adapter has no such value"
    label: ClassVar[str] = "`{tensor}` of `{folder}`: {problem}"
    help: ClassVar[str] = "name an adapter that has this tensor, with the same sizes"
    tensor: str
    folder: str
    problem: str
