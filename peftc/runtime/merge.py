"""Merging: the methods written into the weights of the base.

In: a model and its Plan.  Out: the model with changed weights, and a `Merged` with
which `unmerge` puts the old ones back, bit for bit.  Whether and how a rewrite merges
is derived from its equation; that is done for all sites before the model is touched.

Values are computed in float32 or wider and rounded once, into the weight's dtype.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from peftc.diagnostics.core import Diagnostics
from peftc.diagnostics.runtime import NotMergeable
from peftc.expr.merge import Merged as Derived
from peftc.expr.merge import Refusal, derive_merge
from peftc.plan.equations import composed, definitions, environment
from peftc.runtime.adapters import tensor_at
from peftc.runtime.essence import essence_of
from peftc.runtime.evaluate import (
    by_expert,
    chosen,
    is_transposed,
    row_index,
    values_of,
    wide,
)
from peftc.runtime.names import tensor_path
from peftc.runtime.state import check_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from peftc.plan.types import Plan, Rewrite
    from peftc.syntax.ast import Method
    from peftc.syntax.source import Span
    from peftc.view import Site

Reason: TypeAlias = "tuple[str, Span | None]"
Values: TypeAlias = "Callable[[str], torch.Tensor]"
"""The value of a parameter of the base, or of an added tensor, by its path."""


@dataclass(frozen=True)
class Change:
    """One rewrite and the expressions of what it makes of weight and bias.

    The site's `bias` is the one at that point: one that an earlier change creates, too.
    """

    rewrite: Rewrite
    derived: Derived


@dataclass
class Merged:
    """What is needed to take a merge back: old values, and biases that were created.

    Of a merge into codes, the old `codes` by weight and name, and the `errors`: the
    norm of what encoding lost, as a part of that of the merged weight.
    """

    originals: dict[str, torch.Tensor] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)


def merge(model: nn.Module, plan: Plan) -> Merged:
    """Write every rewrite of a plan into the weights.

    Raises:
        PeftcError: with every reason why it is not possible; nothing is changed then.
    """
    changes = derive(model, plan)
    merged = Merged()
    try:
        for weight, group in changes.items():
            _apply(model, weight, group, merged)
    except BaseException:
        unmerge(model, merged)
        raise
    return merged


def unmerge(model: nn.Module, merged: Merged) -> None:
    """Put the old weights back."""
    with torch.no_grad():
        for path, value in merged.originals.items():
            model.get_parameter(path).copy_(value)
    for path in merged.created:
        owner, _, name = path.rpartition(".")
        model.get_submodule(owner)._parameters[name] = None


# --- deriving ---------------------------------------------------------------------


def derive(model: nn.Module, plan: Plan) -> Mapping[str, Sequence[Change]]:
    """The changes by weight, in the order in which they apply.

    Raises:
        PeftcError: with one diagnostic for each reason, naming all its sites.
    """
    deriver = _Deriver(definitions(plan))
    reasons: dict[Reason, list[str]] = {}
    changes: dict[str, list[Change]] = {}
    for weight, rewrites in _by_weight(plan).items():
        changes[weight] = []
        for rewrite, result in deriver.group(model, weight, rewrites):
            if isinstance(result, Derived):
                changes[weight].append(Change(rewrite, result))
            else:
                reason = (result.reason, result.span)
                reasons.setdefault(reason, []).append(rewrite.site.place)
    _refuse(reasons)
    return changes


def _by_weight(plan: Plan) -> Mapping[str, list[Rewrite]]:
    """Rewrites of one weight together; an edge after the linear that it comes from."""
    groups: dict[str, list[Rewrite]] = {}
    for rewrite in sorted(plan.rewrites, key=lambda r: r.site.kind == "hidden"):
        groups.setdefault(rewrite.site.weight, []).append(rewrite)
    return groups


def _refuse(reasons: Mapping[Reason, Sequence[str]]) -> None:
    errors = Diagnostics()
    for (reason, span), places in reasons.items():
        sites = ", ".join(places[:3])
        sites += f" and {len(places) - 3} more" if len(places) > 3 else ""
        errors.add(NotMergeable(span=span, reason=reason, sites=sites))
    errors.check()


@dataclass
class _Deriver:
    """Derives once for sites that are alike."""

    methods: Mapping[str, Method]
    known: dict[object, Derived | Refusal] = field(default_factory=dict)

    def group(
        self, model: nn.Module, weight: str, rewrites: Sequence[Rewrite]
    ) -> Iterator[tuple[Rewrite, Derived | Refusal]]:
        """Derive the changes of one weight; one may create the bias the next reads."""
        bias = f"{weight.rpartition('.')[0]}.bias"
        module = model.get_submodule(weight.rpartition(".")[0])
        plain = not rewrites[0].site.experts  # a stack of biases has no usual name
        there = plain and module._parameters.get("bias") is not None
        for rewrite in rewrites:
            found = replace(rewrite.site, bias=rewrite.site.bias or bias * there)
            now = replace(rewrite, site=found)
            result = self.one(now)
            if isinstance(result, Derived) and result.creates_bias:
                there = plain and "bias" in module._parameters
                if not there:
                    name = type(module).__name__
                    result = Refusal(f"it needs a bias, which {name} has no place for")
            yield now, result

    def one(self, rewrite: Rewrite) -> Derived | Refusal:
        site = rewrite.site
        if not rewrite.applications:  # a table of positions, moved along
            return Refusal(rewrite.merge.reason)
        applications = tuple(essence_of(a) for a in rewrite.applications)
        has = (bool(site.bias), bool(site.weight), site.post_norm)
        facts = (site.kind, site.sizes, *has)
        key = (facts, applications)
        if key not in self.known:
            equation = composed(rewrite, self.methods)
            self.known[key] = derive_merge(equation, environment(rewrite), site)
        return self.known[key]


# --- applying ---------------------------------------------------------------------


def _apply(
    model: nn.Module, weight: str, changes: Sequence[Change], merged: Merged
) -> None:
    """Work on wide copies of a weight and its bias, then write both, rounded."""

    def value(path: str) -> torch.Tensor:
        return tensor_at(model, path).detach()

    _write(model, changed(model, weight, changes, value), merged)


def changed(
    model: nn.Module, weight: str, changes: Sequence[Change], value: Values
) -> dict[str, torch.Tensor]:
    """What a weight becomes, and its bias if it changes, in float32 or wider.

    The values are those of `value`; of the model only the classes of its modules count.
    """
    given = value(weight)
    work = {weight: given.to(wide(given.dtype), copy=True)}
    for change in changes:
        _change(model, change, work, value)
    return work


def bias_path(change: Change) -> str:
    """The bias that a change writes; "" if it writes none."""
    site = change.rewrite.site
    return _bias(site) if change.derived.bias else ""


def _bias(site: Site) -> str:
    return site.bias or f"{site.weight.rpartition('.')[0]}.bias"


def _change(
    model: nn.Module, change: Change, work: dict[str, torch.Tensor], value: Values
) -> None:
    rewrite, derived = change.rewrite, change.derived
    site = rewrite.site
    matrix = work[site.weight]
    matrix = matrix.mT if is_transposed(model, site) else matrix
    bias = _bias(site)
    if site.bias and bias not in work:
        work[bias] = value(bias).to(matrix.dtype, copy=True)
    elif derived.creates_bias:
        work[bias] = matrix.new_zeros(matrix.shape[0])
    given = _given(rewrite, matrix, work.get(bias), value)
    roots = [derived.weight, *([derived.bias] if derived.bias else [])]
    sizes = {**environment(rewrite), "in": matrix.shape[-1]}
    each = [values_of(roots, values, sizes) for values in by_expert(rewrite, given)]
    parts = zip(*each, strict=True)
    results = [torch.stack(v) if site.experts else v[0] for v in parts]
    rows = row_index(site, matrix.device)
    places = slice(None) if rows is None else rows
    if site.kind == "norm":
        matrix.copy_(results[0])
    else:
        matrix[..., places, :] = results[0]
    if derived.bias:
        work[bias][..., places] = results[1]


def _given(
    rewrite: Rewrite,
    matrix: torch.Tensor,
    bias: torch.Tensor | None,
    added: Values,
) -> dict[str, torch.Tensor]:
    """The tensors that the expressions read, by name."""
    site = rewrite.site
    weight, offset = ("g", "c") if site.kind == "norm" else ("W", "bias")
    values = {weight: chosen(site, weight, matrix).clone()}
    if bias is not None:
        values[offset] = chosen(site, offset, bias).clone()
    for tensor in rewrite.tensors:
        value = added(tensor_path(site, tensor)).to(matrix.device)
        is_number = value.is_floating_point()
        values[tensor.name] = value.to(matrix.dtype) if is_number else value
    return values


def _write(model: nn.Module, work: Mapping[str, torch.Tensor], merged: Merged) -> None:
    weight = model.get_parameter(next(iter(work)))
    rounded = {path: value.to(weight.dtype) for path, value in work.items()}
    check_finite(rounded)
    for path, value in rounded.items():
        owner, _, name = path.rpartition(".")
        module = model.get_submodule(owner)
        old = module._parameters[name]
        if old is None:
            merged.created.append(path)
            module.register_parameter(name, nn.Parameter(value, requires_grad=False))
        else:
            merged.originals[path] = old.detach().clone()
            with torch.no_grad():
                old.copy_(value)
