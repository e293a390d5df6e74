"""AdapterHub's bottlenecks: Pfeiffer, Houlsby, parallel, Compacter, and gated ones.

In: a part, and the view of a model.  Out: pieces at the edges behind the sublayers
whose modules it names: what is inside or beside an attention is about `attn`, all else
about `ffn`.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from peftc.exchange.tuner import Piece

if TYPE_CHECKING:
    from peftc.exchange.adapterhub.parts import Part, Tensors
    from peftc.plan.types import Knob
    from peftc.view import ModelView, Site

DEFINITIONS = """
method gated_adapter(d: size = 64, act = relu) on hidden {
  param D[d, hidden] ~ kaiming(5), bd[d] = 0, U[hidden, d] = 0, bu[hidden] = 0
  param w[hidden] ~ normal(0.02), c[] = 0
  h' = h + mean(sigmoid(w(n) + c), t) * (U(act(D(n) + bd)) + bu)
}
method normed_phm(terms: size = 4, d: size = 8, rank: size = 1, act = gelu) on hidden {
  shared param P[terms, terms, terms] ~ normal(0.0001)
  param S1[terms, d/terms, rank] ~ glorot(1), T1[terms, rank, hidden/terms] ~ glorot(1)
  param S2[terms, hidden/terms, rank] = 0, T2[terms, rank, d/terms] ~ glorot(1)
  param bd[d] = 0, bu[hidden] = 0
  D = sum[i: terms](kron(P[i], S1[i] @ T1[i]))
  U = sum[i: terms](kron(P[i], S2[i] @ T2[i]))
  h' = h + U(act(D(n) + bd)) + bu
}
"""
"""Gates are means over padding too; Compacter++ reads what the next norm would give."""
BASIC = {
    "adapter_down.0.weight": "D",
    "adapter_down.0.bias": "bd",
    "adapter_up.weight": "U",
    "adapter_up.bias": "bu",
}
GATED = {**BASIC, "gate.weight": "w", "gate.bias": "c"}
PHM = {
    "adapter_down.0.W_left": "T1",
    "adapter_down.0.W_right": "S1",
    "adapter_down.0.b": "bd",
    "adapter_up.W_left": "T2",
    "adapter_up.W_right": "S2",
    "adapter_up.b": "bu",
}
"""Theirs are factors of the transposed matrices."""
ACTS = {"relu": "relu", "gelu": "gelu", "swish": "silu", "silu": "silu", "tanh": "tanh"}
READ = (
    *("original_ln_before", "original_ln_after", "ln_before", "ln_after"),
    *("residual_before_ln", "adapter_residual_before_ln", "is_parallel", "scaling"),
    *("use_gating", "non_linearity", "phm_layer", "phm_dim", "phm_rank", "phm_bias"),
    *("factorized_phm_W", "shared_W_phm", "shared_phm_rule", "factorized_phm_rule"),
    *("architecture", "version", "cross_adapter", "inv_adapter"),
)
IDLE = (
    *("mh_adapter", "output_adapter", "reduction_factor", "leave_out", "dropout"),
    *("init_weights", "init_weights_seed", "phm_c_init", "phm_init_range"),
    *("learn_phm", "hypercomplex_nonlinearity", "stochastic_depth"),
    "inv_adapter_reduction_factor",
)
ALWAYS = {
    "original_ln_after": True,
    "ln_before": False,
    "ln_after": False,
    "residual_before_ln": True,
    "adapter_residual_before_ln": False,
    "cross_adapter": False,
    "inv_adapter": None,
}
PHM_ALWAYS = {
    "factorized_phm_W": True,
    "shared_W_phm": False,
    "shared_phm_rule": True,
    "factorized_phm_rule": False,
    "phm_bias": True,
    "use_gating": False,
    "is_parallel": False,
    "scaling": 1.0,
}


def pieces(part: Part, view: ModelView) -> list[tuple[Site, Piece]]:
    """What a part without architecture does, and where."""
    part.folder.only(READ, IDLE)
    part.must(ALWAYS)
    edges = [site for site in view.sites if site.kind == "hidden"]
    made = []
    for module, tensors in part.found("adapters").items():
        site = _place(part, module, edges)
        method, knobs, values = _method(part, module, tensors)
        if method in _NORMED and site.role != "ffn":
            raise part.refused("original_ln_before")
        made.append((site, Piece(site.owner, method, knobs, values)))
    return made


_NORMED = ("pfeiffer", "gated_adapter", "normed_phm")
"""Those that read what the next norm would give, which is known behind `ffn`."""


def _place(part: Part, module: str, edges: list[Site]) -> Site:
    """The edge behind the sublayer that a module is in or beside."""
    role = "attn" if "attention" in module.rpartition("layer")[2] else "ffn"

    path = module.split(".")

    def near(site: Site) -> int:
        pairs = zip(path, site.owner.split("."), strict=False)
        return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))

    sites = [site for site in edges if site.role == role and site.stack != "dec"]
    best = max(sites, key=near, default=None)
    if best is None or near(best) < _depth(module):
        raise part.folder.damaged(f"the model has no sublayer for `{module}`")
    return best


def _depth(module: str) -> int:
    """How many names a module shares with its whole layer: up to its number."""
    parts = module.split(".")
    return next((i + 1 for i, one in enumerate(parts) if one.isdecimal()), len(parts))


def _method(
    part: Part, module: str, tensors: Tensors
) -> tuple[str, tuple[tuple[str, Knob], ...], Tensors]:
    """The method that a bottleneck is, its knobs and its tensors."""
    act = str(part.folder.config.get("non_linearity"))
    if act not in ACTS:
        raise part.refused("non_linearity")
    if part.folder.setting("phm_layer", False):
        return _phm(part, module, tensors)
    normed = part.folder.setting("original_ln_before", False)
    gated = part.folder.setting("use_gating", False)
    values = part.named(module, tensors, GATED if gated else BASIC)
    knobs: list[tuple[str, Knob]] = [("d", len(values["D"])), ("act", ACTS[act])]
    if gated:
        part.must({"original_ln_before": True, "is_parallel": False, "scaling": 1.0})
        flat = part.folder.reshaped
        gate = {"w": flat(values["w"], -1), "c": flat(values["c"])}
        return "gated_adapter", tuple(knobs), {**values, **gate}
    beside = part.folder.setting("is_parallel", False)
    if beside and normed:
        raise part.refused("original_ln_before")
    knobs += [("s", part.folder.setting("scaling", 1.0))]
    method = "parallel" if beside else "pfeiffer" if normed else "adapter"
    return method, tuple(knobs), values


_TURNED = ("S1", "T1", "S2", "T2")


def _phm(
    part: Part, module: str, tensors: Tensors
) -> tuple[str, tuple[tuple[str, Knob], ...], Tensors]:
    part.must(PHM_ALWAYS)
    rules = [one["phm_rule"] for one in part.found("shared_parameters").values()]
    if len(rules) != 1:
        raise part.folder.damaged("it lacks the rule that all its bottlenecks share")
    values = part.named(module, tensors, PHM)
    act = ACTS[str(part.folder.config["non_linearity"])]
    knobs: tuple[tuple[str, Knob], ...] = (
        ("terms", part.folder.setting("phm_dim", 4)),
        ("d", len(values["bd"])),
        ("rank", part.folder.setting("phm_rank", 1)),
        ("act", act),
    )
    normed = part.folder.setting("original_ln_before", False)
    if any(one.ndim != 3 for one in (*(values[n] for n in _TURNED), rules[0])):
        raise part.folder.damaged(f"the factors of `{module}` have other axes")
    turned = {n: values[n].mT for n in _TURNED}
    method = "normed_phm" if normed else "phm"
    return method, knobs, {**values, **turned, "P": rules[0].mT}
