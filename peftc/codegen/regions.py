"""The fused regions of a model, their kernels and the bytes that these move.

In: a plan, which of its linears read one activation, and the machine to plan for.  Out:
a `Region` for each kind of these groups: its joint program, its kernels, or why it has
none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftc.codegen.accounts import Account, account_of, by_kernels
from peftc.codegen.kernels.source import KernelSource, kernel_source
from peftc.codegen.one_step import Apart, forms
from peftc.codegen.torch_writer import NoSourceError
from peftc.expr.grouped import group, site_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from peftc.expr.cost import Machine
    from peftc.expr.joint_program import JointProgram
    from peftc.plan.types import Plan
    from peftc.view import Site

MIB = 2**20


@dataclass(frozen=True)
class Region:
    """Linears that are one step wherever they stand; `sites` are those of one of them.

    `kernels` is empty where a step has no form as one: torch runs it, and `why` says
    what it is.
    """

    sites: tuple[Site, ...]
    account: Account
    kernels: KernelSource | None
    why: str

    @property
    def name(self) -> str:
        """`q_k_v`: the roles, or parts of paths, that files are called after."""
        return "_".join(s.role or s.place.replace(".", "-") for s in self.sites)

    def texts(self) -> Mapping[str, str]:
        """The modules by direction, with what they move."""
        if self.kernels is None:
            return {}
        head = "".join(f"# {line}\n" for line in self.lines())
        both = {"forward": self.kernels.forward, "backward": self.kernels.backward}
        return {way: f"{head}{text}" for way, text in both.items()}

    def lines(self) -> Iterator[str]:
        """Where it stands, and the bytes it moves."""
        account = self.account
        yield f"sites {', '.join(account.sites)}"
        pairs = (("forward", account.forward), ("backward", account.backward))
        for way, pair in pairs:
            moved, least = (f"{number / MIB:.1f}" for number in pair or (0, 0))
            yield f"{way} {moved} MiB of at least {least}"
        yield f"kept {(account.kept or 0) / MIB:.1f} MiB"
        if self.why:
            yield f"no kernels: {self.why}"


def regions(
    plan: Plan, readers: Iterable[Sequence[str]], machine: Machine
) -> list[Region]:
    """The regions of training: of linears in the order of the graph, then of values
    between layers; equal ones are one.

    `readers` are keys of sites, by the activation that these read.
    """
    programs = {
        rewrite.site.key: (rewrite.site, form)
        for same, form in forms(plan, machine)
        if not isinstance(form, Apart)
        for rewrite in same
    }
    found: dict[tuple[JointProgram, frozenset[str]], list[list[Site]]] = {}
    values = ((key,) for key, (site, _) in programs.items() if site.kind == "hidden")
    for keys in (*readers, *values):
        pairs = [programs[key] for key in keys if key in programs]
        if pairs:
            sites = [site for site, _ in pairs]
            program = group([form for _, form in pairs])
            found.setdefault((program, _biases(sites)), []).append(sites)
    return [_region(*key, every, machine) for key, every in found.items()]


def _biases(sites: Sequence[Site]) -> frozenset[str]:
    names = site_names("bias", len(sites))
    return frozenset(n for n, site in zip(names, sites, strict=True) if site.bias)


def _region(
    program: JointProgram,
    biases: frozenset[str],
    every: Sequence[Sequence[Site]],
    machine: Machine,
) -> Region:
    places = tuple(site.place for sites in every for site in sites)
    account = account_of(program, every[0], places, machine)
    wanted = [name for name, _ in program.backward.results]
    try:
        kernels = kernel_source(program, wanted, biases)
    except NoSourceError as error:
        return Region(tuple(every[0]), account, None, str(error))
    account = by_kernels(account, program, every[0], kernels.moved, machine)
    return Region(tuple(every[0]), account, kernels, "")
