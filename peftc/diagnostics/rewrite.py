"""Errors of rewriting a captured graph (430 to 459) and of emission (500 to 519).

In: nothing.  Out: the diagnostic classes that `peftc.rewrite` and the graph passes
raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class SiteNotFoundInGraph(Diagnostic):
    """The forward uses the weight of a planned site, but the site is not in its graph.

    The plan was made from one capture of the model.  This capture of the same model
    computes something else with the weight: another library replaced the module or its
    `forward`, the weight is used inside a sub-graph that is not entered, or an argument
    switched the model to another implementation.  Running on would ignore the method at
    this site in silence, so the call is refused.

    Example: `model.layers[0].self_attn.q_proj` was replaced by a quantised linear after
    `peftc.compile`.

    Fix: undo what changed since the model was compiled, or compile the model again.
    """

    code: ClassVar[str] = "PEFT430"
    title: ClassVar[str] = "a site is missing from the captured graph"
    label: ClassVar[str] = "`{site}`: its weight is used by {users}"
    help: ClassVar[str] = (
        "undo what changed since the model was compiled, or compile it again"
    )
    exit_code: ClassVar[int] = 3
    site: str
    users: str


@dataclass(frozen=True, kw_only=True)
class EdgeLost(Diagnostic):
    """The reader of a hidden edge does not read the edge's value.

    A method on `attn`, `ffn` or `block` replaces one value for one reader, the residual
    add.  Here that reader takes its operands from elsewhere: nothing can be replaced.
    This is a mistake of the compiler, not of the spec: please report it with the
    reproducer that was written.
    """

    code: ClassVar[str] = "PEFT431"
    title: ClassVar[str] = "an edge is not where it was found"
    label: ClassVar[str] = "`{site}`: the reader does not read the edge's value"
    exit_code: ClassVar[int] = 70
    site: str


@dataclass(frozen=True, kw_only=True)
class NotRewritten(Diagnostic):
    """A located site was rewritten too rarely or too often.

    Each use of a site's weight in the forward is rewritten exactly once.  The check
    that runs after the rewriting passes counted otherwise.  This is a mistake of the
    compiler, not of the spec: please report it with the reproducer that was written.
    """

    code: ClassVar[str] = "PEFT432"
    title: ClassVar[str] = "a site was not rewritten as planned"
    label: ClassVar[str] = "`{site}`: {target}' was written {found} times, not {wanted}"
    exit_code: ClassVar[int] = 70
    site: str
    target: str
    found: int
    wanted: int


@dataclass(frozen=True, kw_only=True)
class OldValueRead(Diagnostic):
    """Something still reads a value that a method replaced.

    After the rewriting passes, a replaced value may be read only by the computation
    that replaces it.  This is a mistake of the compiler, not of the spec: please report
    it with the reproducer that was written.
    """

    code: ClassVar[str] = "PEFT433"
    title: ClassVar[str] = "a replaced value is still read"
    label: ClassVar[str] = "`{site}`: {reader} reads {target} as it was"
    exit_code: ClassVar[int] = 70
    site: str
    target: str
    reader: str


@dataclass(frozen=True, kw_only=True)
class TensorUnread(Diagnostic):
    """An added tensor takes no part in the rewritten forward.

    The tensor is an input of the site's computation, yet nothing reads it: it would get
    no gradient and change nothing.  This is a mistake of the compiler, not of the spec:
    please report it with the reproducer that was written.
    """

    code: ClassVar[str] = "PEFT434"
    title: ClassVar[str] = "an added tensor is not used"
    label: ClassVar[str] = "`{site}`: nothing reads `{tensor}`"
    exit_code: ClassVar[int] = 70
    site: str
    tensor: str


@dataclass(frozen=True, kw_only=True)
class InputMissing(Diagnostic):
    """An equation reads a value that this graph does not have at the site.

    For instance `u`, the input of the sublayer, where the dataflow did not show one, or
    `bias` at a linear that was called without its bias in this forward.

    Example: `h' = h + U(relu(D(u)))` at a sublayer without a linear at its entrance.

    Fix: leave the site out, or write the equation without that value.
    """

    code: ClassVar[str] = "PEFT435"
    title: ClassVar[str] = "a value is missing at a site"
    label: ClassVar[str] = "`{site}` has no `{name}` in this forward"
    help: ClassVar[str] = "leave the site out, or do not use `{name}` in the equation"
    exit_code: ClassVar[int] = 3
    site: str
    name: str


@dataclass(frozen=True, kw_only=True)
class WholeAndRows(Diagnostic):
    """A fused matrix and some of its rows are rewritten together, and they conflict.

    Methods on `q` and on the whole fused matrix (`"*.c_attn"`) may be combined as long
    as the one on the rows only adds to the output or works on the output.  One that
    changes what the rows multiply, or reads the weight, would see the base's weight and
    not the rewritten one.

    Example: `lora("*.c_attn") + oft(q)`.

    Fix: apply both to the rows (`lora(q, k, v) + oft(q)`), or both to the whole matrix.
    """

    code: ClassVar[str] = "PEFT436"
    title: ClassVar[str] = "a matrix and its rows are both rewritten"
    label: ClassVar[str] = (
        "`{site}` are rows of `{whole}`, and their equation reads {name}"
    )
    help: ClassVar[str] = "apply both methods to the rows, or both to the whole matrix"
    site: str
    whole: str
    name: str


@dataclass(frozen=True, kw_only=True)
class NotRepeatable(Diagnostic):
    """A part of the model's own computation would have to run twice and must not.

    An equation that replaces the input of a linear (`x' = ...`) calls the model's own
    operations again on the new input.  One of them changes its operand in place or
    draws random numbers, so that a second run would change the model's result.

    Fix: use a method on the output of that linear instead.
    """

    code: ClassVar[str] = "PEFT437"
    title: ClassVar[str] = "the base computation cannot be repeated"
    label: ClassVar[str] = "`{site}`: `{op}` may run only once"
    help: ClassVar[str] = "use a method that works on the output there"
    exit_code: ClassVar[int] = 3
    site: str
    op: str


@dataclass(frozen=True, kw_only=True)
class AttentionNotExtended(Diagnostic):
    """A method adds keys and values to an attention whose call cannot take them.

    The attention is one call of a kernel that hides its masks from the graph (flex
    attention, a flash kernel of another package).  Longer keys would need another mask,
    and guessing at it would be wrong in silence.

    Example: `prefix(k, v)` on a model with `attn_implementation="flex_attention"`.

    Fix: use an attention that is visible: `model.set_attn_implementation("sdpa")` keeps
    a fused kernel, `"eager"` spells the attention out.
    """

    code: ClassVar[str] = "PEFT438"
    title: ClassVar[str] = "this attention cannot be extended"
    label: ClassVar[str] = "`{site}` is a call of `{op}`"
    help: ClassVar[str] = 'call `model.set_attn_implementation("sdpa")` or `"eager"`'
    exit_code: ClassVar[int] = 3
    site: str
    op: str


@dataclass(frozen=True, kw_only=True)
class StepNotCarried(Diagnostic):
    """Between scores and values there is a step that added keys have no meaning in.

    Spelt-out attentions scale, cap, mask and drop their scores; what these do to the
    scores of added keys is known.  A step that multiplies each key by a number of its
    own, or an operator that is not known, leaves it open.

    Example: an attention that multiplies its weights by a learned number per position.

    Fix: apply the method to other layers, or use another implementation of the
    attention: `model.set_attn_implementation("sdpa")`.
    """

    code: ClassVar[str] = "PEFT439"
    title: ClassVar[str] = "an attention does more to its scores than is known"
    label: ClassVar[str] = "`{site}`: `{op}` has no meaning for added keys"
    help: ClassVar[str] = 'try `model.set_attn_implementation("sdpa")`'
    exit_code: ClassVar[int] = 3
    site: str
    op: str


@dataclass(frozen=True, kw_only=True)
class RowsPerQuery(Diagnostic):
    """Added keys depend on the token, but the attention's queries are no tokens.

    A gate that depends on each token gives each query rows of its own.  Here the
    attention works on windows, or on queries of several heads in one axis, so that its
    queries are not the tokens that the sublayer reads.

    Example: `gate(prefix(k, v), per_token=true)` on a model with windows.

    Fix: let the rows depend on samples or on nothing: do without the gate at this site.
    """

    code: ClassVar[str] = "PEFT440"
    title: ClassVar[str] = "the queries of this attention are no tokens"
    label: ClassVar[str] = "`{site}`: rows for each token have no query to go to"
    help: ClassVar[str] = "leave the gate out here, or pool it over tokens"
    exit_code: ClassVar[int] = 3
    site: str


@dataclass(frozen=True, kw_only=True)
class MaskNotFlat(Diagnostic):
    """An equation reads which tokens are real, and the mask given does not say it.

    `real` is read off the argument `attention_mask` (of a decoder with an encoder:
    `decoder_attention_mask`) of shape [batch, tokens].  A mask that gives a row for
    each query says what is seen, not what is there.

    Example: `gate(lora(q, v))` on a BERT that is called with a mask of four axes.

    Fix: give the mask of two axes; transformers makes the other one from it.
    """

    code: ClassVar[str] = "PEFT441"
    title: ClassVar[str] = "the attention mask does not say which tokens are real"
    label: ClassVar[str] = "`{site}` needs a mask [batch, tokens]; it has {rank} axes"
    help: ClassVar[str] = "call the model with a mask of two axes"
    exit_code: ClassVar[int] = 3
    site: str
    rank: int


@dataclass(frozen=True, kw_only=True)
class TokensNotSeparate(Diagnostic):
    """An equation needs a batch and a token axis, and the activation has none such.

    Equations that reduce over tokens (`mean(e, t)`) name the axes b and t.  At this
    site the model works on a flattened activation `[b * t, features]`, or on one that
    has more than two leading axes, so there is no token axis to reduce over.

    Example: `gate(lora("*.experts.*"))` with a gate that averages over `t`.

    Fix: leave the site out, or use a method that treats each token by itself.
    """

    code: ClassVar[str] = "PEFT500"
    title: ClassVar[str] = "there is no token axis here"
    label: ClassVar[str] = (
        "`{site}` has an activation of {rank} axes, not [b, t, features]"
    )
    help: ClassVar[str] = "leave the site out, or use a method that treats tokens alone"
    exit_code: ClassVar[int] = 3
    site: str
    rank: int


@dataclass(frozen=True, kw_only=True)
class TokensOfExperts(Diagnostic):
    """An equation needs a batch and a token axis, and the site is a stack of experts.

    Equations that reduce over tokens (`mean(e, t)`) name the axes b and t.  The rows
    that experts see are sorted by expert: those of one sample are not side by side, and
    each is there once for every expert that it was sent to.

    Example: `gate(lora(experts.up))` with a gate that averages over `t`.

    Fix: leave the experts out, or use a method that treats each token by itself.
    """

    code: ClassVar[str] = "PEFT510"
    title: ClassVar[str] = "the rows of experts are no tokens of a sample"
    label: ClassVar[str] = "the equation at `{site}` needs a batch and a token axis"
    help: ClassVar[str] = (
        "leave the experts out, or use a method that treats tokens alone"
    )
    exit_code: ClassVar[int] = 3
    site: str


@dataclass(frozen=True, kw_only=True)
class SamplesNotFirst(Diagnostic):
    """The samples of a batch are not the first axis of a value that is replaced.

    Under `slots.rows([...])` each sample of the batch has an adapter of its own.  Here
    the model computes on something else than samples: windows of images, patches of all
    samples in one row, or tokens before samples.

    Fix: run the samples of each adapter by themselves, under `slots.using(name)`.
    """

    code: ClassVar[str] = "PEFT458"
    title: ClassVar[str] = "the samples are not the first axis"
    label: ClassVar[str] = "`{site}` works on a value of shape {shape}"
    help: ClassVar[str] = "run each adapter's samples alone, with `slots.using(name)`"
    exit_code: ClassVar[int] = 3
    site: str
    shape: str


@dataclass(frozen=True, kw_only=True)
class SamplesMixed(Diagnostic):
    """An equation computes one value from all samples, and these have several adapters.

    Under `slots.rows([...])` each sample of the batch has an adapter of its own.  An
    equation that reduces over the samples (`mean(e, b)`) has no adapter to do it with.

    Fix: run the samples of each adapter by themselves, under `slots.using(name)`.
    """

    code: ClassVar[str] = "PEFT459"
    title: ClassVar[str] = "an equation mixes samples of several adapters"
    label: ClassVar[str] = "the equation at `{site}` reduces over the samples"
    help: ClassVar[str] = "run each adapter's samples alone, with `slots.using(name)`"
    exit_code: ClassVar[int] = 3
    site: str


@dataclass(frozen=True, kw_only=True)
class NoGraphForm(Diagnostic):
    """A program holds a function that the graph writer does not know.

    Programs made by this version of peftc hold known functions only; this one was read
    from a plan text that another version, or a person, wrote.

    Fix: plan again with this version.
    """

    code: ClassVar[str] = "PEFT501"
    title: ClassVar[str] = "a function has no form in the graph"
    label: ClassVar[str] = "`{site}`: step {step} calls `{fn}`"
    help: ClassVar[str] = "plan again with this version of peftc"
    site: str
    step: str
    fn: str


@dataclass(frozen=True, kw_only=True)
class CannotInsert(Diagnostic):
    """A forward was given something that rows cannot be put among.

    A method adds rows among the tokens that a model reads.  For each row every argument
    with a number for each token gets one more: masks, positions, labels, kinds of
    tokens.  That takes the tokens themselves (`input_ids`, not embeddings), a mask of
    [samples, tokens], and arguments of which it is known what they are for a row.
    `encoder_outputs` must come from the encoder of the compiled model, run by itself,
    which gives out the states of rows as well.

    Example: `model(inputs_embeds=...)` after `peftc.compile(model, "prompt(p=8)")`.

    Fix: give the tokens; leave out what the label names; or run the base, inside
    `with model.peftc.disabled():`.
    """

    code: ClassVar[str] = "PEFT445"
    title: ClassVar[str] = "rows cannot be put among these inputs"
    label: ClassVar[str] = "`{site}`: {problem}"
    help: ClassVar[str] = "give tokens, and a mask of [samples, tokens]"
    exit_code: ClassVar[int] = 3
    site: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class GradientsOnce(Diagnostic):
    """Gradients of gradients were asked for, of a site that does not keep its input.

    A linear and its methods are one step of autograd in training, and what it does not
    need for the first gradients is not kept.  A fused attention has first gradients
    only, with added keys beside it and without.

    Example: `torch.autograd.grad(loss, tensors, create_graph=True)` with `ia3(k)`.

    Fix: `peftc.compile(model, spec, backend="plain")`; for attentions, run forward and
    backward `with torch.nn.attention.sdpa_kernel(SDPBackend.MATH):`.
    """

    code: ClassVar[str] = "PEFT446"
    title: ClassVar[str] = "gradients of gradients are not at hand"
    label: ClassVar[str] = "a site keeps what its first gradients need"
    help: ClassVar[str] = 'compile with `backend="plain"`'


@dataclass(frozen=True, kw_only=True)
class KernelsOnCpu(Diagnostic):
    """Generated kernels were asked for where there is no graphics card.

    `backend="triton"` runs sites as generated Triton kernels.  They need tensors on a
    card.  For a trial without one they run in Triton's interpreter, very slowly, where
    `TRITON_INTERPRET=1` stands in the environment before Python starts.

    Example: `peftc.compile(model, "lora(q)", backend="triton")` with a model on a CPU.

    Fix: `model.to("cuda")`, or another backend: `eager` is planned for CPUs.
    """

    code: ClassVar[str] = "PEFT447"
    title: ClassVar[str] = "generated kernels need a graphics card"
    label: ClassVar[str] = "`{site}` is on `{device}`"
    help: ClassVar[str] = 'move the model to "cuda", or compile with `backend="eager"`'
    exit_code: ClassVar[int] = 5
    site: str
    device: str


@dataclass(frozen=True, kw_only=True)
class KernelRefused(Diagnostic):
    """A generated kernel gave something else than torch, or failed; torch is used.

    Every kernel is compared with torch at its first call of each kind: a device, types,
    layouts, and about as many tokens.  One that is farther from the same computation in
    a wider type than torch is does not run again for such calls in this process.
    Results are those of torch; they only take longer.

    The folder holds the kernel's plan, the kernel and what it was called with: please
    report it.

    Fix: `peftc replay FOLDER` tells whether it still is so, for example after an update
    of Triton.
    """

    code: ClassVar[str] = "PEFT448"
    title: ClassVar[str] = "a generated kernel is not used"
    label: ClassVar[str] = "{kernel}: {problem}"
    help: ClassVar[str] = "torch does its work; `peftc replay {folder}` shows it again"
    kernel: str
    problem: str
    folder: str
