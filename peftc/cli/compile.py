"""`peftc compile SPEC MODEL -o DIR`: the artefact of a compilation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from peftc.cli.guard import guarded
from peftc.cli.options import (
    Json,
    Model,
    Output,
    PrintIR,
    RandomInit,
    Seed,
    Spec,
    load_model,
    watcher,
)
from peftc.cli.output import check_replaceable, console, say, whole_folder
from peftc.cli.summary import summary
from peftc.codegen.accounts import accounts
from peftc.codegen.regions import regions
from peftc.codegen.text import torch_text
from peftc.driver import check, compile_model, read_spec
from peftc.expr.order import MACHINE
from peftc.plan.print import plan_text
from peftc.plan.record import plan_record
from peftc.syntax.parse import parse
from peftc.syntax.print import format_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftc.plan.types import Plan
    from peftc.runtime.handle import Handle
    from peftc.syntax.source import Source


@guarded
def command(
    spec: Spec,
    model: Model,
    output: Output,
    seed: Seed = 0,
    random_init: RandomInit = None,
    as_json: Json = False,
    print_ir: PrintIR = False,
) -> None:
    """Compile a spec into a model: plan, rewritten graph, initial parameters."""
    source = read_spec(spec)
    check(source)
    check_replaceable(output)
    base = load_model(model, random_init)
    handle = compile_model(base, source, seed=seed, watch=watcher(print_ir))
    with whole_folder(output) as folder:
        _write(handle, source, folder)
    if as_json:
        print(json.dumps(plan_record(handle.plan), indent=2))
    else:
        console().print(summary(handle.plan))
    say(f"wrote {output}")


def _write(handle: Handle, source: Source, folder: Path) -> None:
    """The files of the artefact."""
    plan = handle.plan
    texts = {
        "spec.peft": format_file(parse(source)),
        "plan.txt": plan_text(plan),
        "plan.json": json.dumps(plan_record(plan), indent=2) + "\n",
        "graph.txt": handle.graph(),
        "programs.py": _programs(plan),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    _write_kernels(handle, folder / "kernels")
    handle.save(folder)


def _write_kernels(handle: Handle, folder: Path) -> None:
    """The kernels of each kind of fused region, and a table of what they move."""
    found = regions(handle.plan, handle.captures.readers, MACHINE)
    folder.mkdir()
    told = [f"planned for {MACHINE.text()}"]
    for number, region in enumerate(found, 1):
        name = f"{number:02}_{region.name}"
        told.append("\n".join((name, *(f"  {line}" for line in region.lines()))))
        for way, text in region.texts().items():
            (folder / f"{name}_{way}.py").write_text(text, encoding="utf-8")
    text = "\n\n".join((*told, *_apart(handle.plan))) + "\n"
    (folder / "kernels.txt").write_text(text, encoding="utf-8")


def _apart(plan: Plan) -> Iterator[str]:
    """Sites that are no fused region, and why."""
    for account in accounts(plan, MACHINE):
        if account.why:
            yield f"apart\n  sites {', '.join(account.sites)}\n  {account.why}"


def _programs(plan: Plan) -> str:
    """Each distinct program once, as a readable torch function."""
    functions: dict[str, str] = {}
    for rewrite in plan.rewrites:
        for program in rewrite.programs:
            name = f"{rewrite.site.role or 'linear'}_{len(functions)}"
            functions.setdefault(torch_text(program, "NAME"), name)
    made = (text.replace("NAME", name) for text, name in functions.items())
    return "\n\n".join(made) + "\n"
