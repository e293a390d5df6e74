"""The 26 methods of the field, and what becomes of each pair of them.

In: two methods.  Out: `Outcome`: the spec `first + second`, compiled into a small
decoder in float64, trained for a step, saved and loaded again; or the code of the
diagnostic that refuses it.  And `meaning`: its plan, but for the order of names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

import peftc
from peftc.diagnostics.core import PeftcError
from peftc.driver import make_plan, read_spec
from peftc.sites import view
from peftc.training import Forward, Run
from tests.numerics.runtime.tiny import llama

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from peftc.plan.types import Application, Plan, Rewrite

METHODS: Mapping[str, str] = {
    "adapter": "adapter(attn, ffn, d=4)",
    # the consistency term has fixed targets: its gradient is no derivative of it
    "adamix": "adamix(adapter(ffn, d=4), E=2, consistency=0)",
    "prompt": "prompt(p=3)",
    "prefix": "prefix(p=3)",
    "ptuning": "ptuning(p=3, encoder=mlp)",
    "ipt": "ipt(p=3, d=4, m=6)",
    "distill": "distill(alpha=0.5)",
    "ladder": "ladder(reduction=2)",
    "ia3": "ia3(k, v, ffn)",
    "quantize": "quantize(o, down, block=16)",
    "bitfit": "bitfit(q, v, create=true)",
    "prune": "prune(o, down, sparsity=0.3)",
    "diffprune": "diffprune(q, up, target=0.1)",
    "far": "far(up, gate, retain=0.25, prime=2)",
    "fishmask": "fishmask(q, v, keep=0.1)",
    "ulmfit": "ulmfit(every=1, first=6, cut_frac=0.5)",
    "intrinsic": "intrinsic(q, v, d=20)",
    "lora": "lora(q, v, r=2)",
    "krona": "krona(q, v) + krona_b_res(ffn)",
    "adalora": "adalora(q, v, init_r=3, target_r=2)",
    "qlora": "qlora(r=2)",
    "sparse": "sparse(adapter(attn, d=4), S=0.4)",
    "mam": "mam(p=3, d=4)",
    "unipelt": "unipelt(p=3, d=4, r=2)",
    "compacter": "compacter(n=2, reduction=8)",
    "s4": "s4(total=2000)",
}
"""A spec for each."""

NEAR = 1e-3
"""Of a derivative along a direction and the difference quotient, relative."""
EPSILON = 1e-4


@dataclass(frozen=True)
class Outcome:
    """What a pair gives.

    `refused` is the code of the diagnostic, or empty.  `still` are trained parameters
    without a gradient, or that a step left where they were.  `slope` and `quotient`
    are the loss's derivative along the gradient and its difference quotient.
    """

    refused: str = ""
    base_changed: bool = False
    still: tuple[str, ...] = ()
    slope: float = 0.0
    quotient: float = 0.0
    reloaded: bool = False


def batch() -> dict[str, Tensor]:
    """Two texts, of which one has padding."""
    ids = torch.randint(3, 60, (2, 6), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids}


def small(layers: int) -> Any:
    """A decoder; making a cache, which no one reads here, is a tenth of a capture."""
    sizes = {"hidden_size": 16, "intermediate_size": 24}
    return llama(layers=layers, **sizes, use_cache=False).double()


def spec_of(first: str, second: str) -> str:
    return f"{METHODS[first]} + {METHODS[second]}"


def base_of(first: str, second: str) -> Any:
    return small(4 if "s4" in (first, second) else 1)


def outcome(first: str, second: str, folder: Path) -> Outcome:
    """Try `first + second`."""
    base = base_of(first, second)
    try:
        model = peftc.compile(base, spec_of(first, second))
        return _tried(model.train(), folder)
    except PeftcError as error:
        return Outcome(refused=error.diagnostics[0].code)


def _tried(model: Any, folder: Path) -> Outcome:
    before = {n: t.clone() for n, t in model.state_dict().items() if not added(n)}
    run = Run(model, steps=4, calibration=[batch()])
    torch.manual_seed(7)
    for parameter in run.trained().values():  # away from zeros, where nothing moves
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    slope, quotient = _slopes(run)
    still = _step(run)
    after = model.state_dict()
    changed = any(not torch.equal(value, after[name]) for name, value in before.items())
    return Outcome("", changed, still, slope, quotient, _reloads(model, folder))


def added(name: str) -> bool:
    """Whether a tensor of the model belongs to a method."""
    return ".peftc." in f".{name}"


def _slopes(run: Run) -> tuple[float, float]:
    """The loss's derivative along its gradient, and the quotient of differences."""
    parameters = list(run.trained().values())
    if not parameters:
        run.before_forward()
        return 0.0, 0.0
    _loss(run).backward()
    steps = [
        torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters
    ]
    length = torch.stack([s.square().sum() for s in steps]).sum().sqrt()
    values = []
    for sign in (1, -2, 1):  # with gradients as before: another mode is another capture
        for parameter, step in zip(parameters, steps, strict=True):
            parameter.data.add_(sign * EPSILON / length * step)
        values.append(_loss(run).item())
    return float(length), (values[0] - values[1]) / (2 * EPSILON)


def _loss(run: Run) -> Tensor:
    """The whole loss in float64; transformers rounds its own to float32."""
    run.before_forward()
    given = batch()
    outputs = run.forward(given)
    logits, labels = outputs.logits[:, :-1], given["labels"][:, 1:]
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    return run.whole_loss(Forward(given, outputs, loss))


def _step(run: Run) -> tuple[str, ...]:
    """Take a step; the parameters that it does not move."""
    before = {name: p.detach().clone() for name, p in run.trained().items()}
    if before:
        run.optimize(torch.optim.AdamW(run.parameter_groups(lr=0.01)))
    found = run.trained()
    return tuple(n for n, value in before.items() if torch.equal(value, found[n]))


def _reloads(model: Any, folder: Path) -> bool:
    """Whether the saved adapter gives another base the same tensors."""
    model.peftc.save(folder)
    again = peftc.load(small(model.config.num_hidden_layers), folder)
    one, other = model.state_dict(), again.state_dict()
    same = (torch.equal(value, other[name]) for name, value in one.items())
    return one.keys() == other.keys() and all(same)


# --- the order of a pair --------------------------------------------------------------


def meaning(first: str, second: str) -> Plan:
    """The plan of `first + second`, without what neither a model nor a run reads: where
    in the text a method stands, and in which order methods are listed.

    The programs of a site are left as they are, so that two plans that are equal
    compute the same; so are controls, which run in their order.
    """
    found = view.model_view(base_of(first, second))
    plan = make_plan(read_spec(spec_of(first, second)), found)
    return replace(
        plan,
        methods=tuple(sorted(plan.methods, key=lambda method: method.name)),
        rewrites=tuple(map(_unordered, plan.rewrites)),
        whole=tuple(map(_nowhere, plan.whole)),
        stores=tuple(replace(stored, origin="") for stored in plan.stores),
    )


def _unordered(rewrite: Rewrite) -> Rewrite:
    listed = sorted(map(_nowhere, rewrite.applications), key=lambda one: one.instance)
    return replace(rewrite, applications=tuple(listed))


def _nowhere(one: Application) -> Application:
    return replace(one, origin="", wraps=tuple(map(_nowhere, one.wraps)))
