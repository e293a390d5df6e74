"""The library: what is in it, what it counts, and what may be added to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from peftc.diagnostics.core import PeftcError
from peftc.driver import make_plan
from peftc.expr.elaborate import elaborate
from peftc.expr.equation import Equation
from peftc.expr.knobs import Given, bind_knobs
from peftc.expr.scope import kind_of
from peftc.resolve import library as module
from peftc.resolve.library import Library, standard_library
from peftc.syntax.parse import parse
from peftc.syntax.print import format_file
from peftc.syntax.source import Source
from tests.views import toy

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(module.__file__).parent.parent / "methods"
FILES = sorted(FOLDER.glob("*.peft"))
MINE = "method mine() on linear { param l[out] = 1; y' = l * y }"


def file(text: str, name: str = "mine.peft") -> Any:
    return parse(Source(name, text))


def codes(error: pytest.ExceptionInfo[PeftcError]) -> list[str]:
    return [d.code for d in error.value.diagnostics]


# --- what is in it -----------------------------------------------------------------


FAMILIES = {
    *("additive", "soft prompt", "selective", "reparametrisation", "hybrid"),
    *("composition", "compression", "side network", "training"),
}


def test_each_file_holds_the_one_definition_it_is_named_after() -> None:
    library = standard_library()
    names = {path.stem for path in FILES}
    assert {*library.methods, *library.macros} == names
    for path in FILES:
        assert [item.name for item in file(path.read_text()).items] == [path.stem]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_are_canonical_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert format_file(file(text)) == text
    first = text.splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")
    assert max(map(len, text.splitlines())) <= 88
    families = re.findall(r"^# Family: ([\w ]+)\.$", text, re.MULTILINE)
    assert len(families) == 1
    assert families[0] in FAMILIES


def test_the_library_is_read_once() -> None:
    assert standard_library() is standard_library()


# --- counts ------------------------------------------------------------------------


def count(
    name: str, sizes: Mapping[str, int], clause: int = 0, **knobs: float | str
) -> int:
    """The trained scalars of a method at a site."""
    method = standard_library().methods[name]
    assert kind_of(method.clauses[clause].place)
    given = {knob: Given(value) for knob, value in knobs.items()}
    bound = bind_knobs(method, given, sizes)
    nothing = {p.name: list[Equation]() for p in method.params if p.type == "method"}
    equation = elaborate(method.clauses[clause], bound, sizes, "m.", nothing)
    env = {**sizes, **{f"m.{n}": v for n, v in bound.items() if isinstance(v, int)}}
    return sum(
        prod(axis.value(env) for axis in declared.axes)
        for declared in equation.declarations
        if declared.kind == "param"
    )


def linear(out: int, inputs: int) -> dict[str, int]:
    return {"out": out, "in": inputs}


WIDE = {"hidden": 768}
SQUARE = linear(768, 768)
LAYERS = 12

Counts: TypeAlias = dict[str, tuple[int, Callable[[], int]]]

BERT: Counts = {  # published and exact counts for BERT-base
    "pfeiffer": (894_528, lambda: LAYERS * count("pfeiffer", WIDE)),
    "houlsby, reduction 16": (
        1_789_056,
        lambda: LAYERS * 2 * count("adapter", WIDE, d=48),
    ),
    "houlsby, 64": (2_379_264, lambda: LAYERS * 2 * count("adapter", WIDE, d=64)),
    "norms of houlsby": (36_864, lambda: 24 * count("norm_tuning", WIDE)),
    "parallel, reduction 2": (
        7_091_712,
        lambda: LAYERS * count("parallel", WIDE, d=384),
    ),
    "lora q v": (294_912, lambda: LAYERS * 2 * count("lora", SQUARE, r=8)),
    "ia3": (
        55_296,
        lambda: (
            LAYERS
            * (2 * count("ia3", SQUARE) + count("ia3", linear(768, 3072), clause=1))
        ),
    ),
    "vera": (18_624, lambda: LAYERS * 2 * count("vera", SQUARE, r=8)),
    "bitfit of the layers": (
        12 * (4 * 768 + 3072 + 768 + 2 * 768),
        lambda: (
            LAYERS
            * (
                5 * count("bitfit", SQUARE)
                + count("bitfit", linear(3072, 768))
                + 2 * count("bitfit", WIDE, clause=1)
            )
        ),
    ),
}


@pytest.mark.parametrize("name", BERT)
def test_counts_of_bert(name: str) -> None:
    expected, counted = BERT[name]
    assert counted() == expected


TOY: Counts = {  # a decoder of two layers: width 64, key and value width 32
    "krona": (448, lambda: 2 * sum(count("krona", linear(o, 64)) for o in (64, 32))),
    "dora": (3_776, lambda: 2 * sum(count("dora", linear(o, 64)) for o in (64, 32))),
    "lora": (3_584, lambda: 2 * sum(count("lora", linear(o, 64)) for o in (64, 32))),
    "adapter": (4_384, lambda: 4 * count("adapter", {"hidden": 64}, d=8)),
    "pfeiffer": (1_160, lambda: 2 * count("pfeiffer", {"hidden": 64})),
    "parallel": (2_192, lambda: 2 * count("parallel", {"hidden": 64}, d=8)),
    "ia3": (
        384,
        lambda: (
            2 * (2 * count("ia3", linear(32, 64)) + count("ia3", linear(64, 128), 1))
        ),
    ),
    "loha": (2 * 8 * (64 + 32), lambda: count("loha", linear(64, 32))),
    "miss": (8 * 64, lambda: count("miss", linear(64, 32))),
    "full": (64 * 32 + 64, lambda: count("full", linear(64, 32))),
    "gate": (32 + 1, lambda: count("gate", linear(64, 32))),
}

ONE_FOR_ALL = """
method same(p: size) on attention {
  shared param K[p, key] ~ normal(0.02), V[p, value] ~ normal(0.02)
  k' = K
  v' = V
}
same(p=10)
"""
SPECS = {  # the counts that the methods' papers' formulas give for the same decoder
    "prefix(p=10)": 1_280,
    "prefix(p=10, mlp=32)": 6_944,
    ONE_FOR_ALL: 640,
    "mam(p=10, d=8)": 3_472,
    "unipelt(p=10, d=8, r=8)": 7_576,
    "phm(attn, ffn, d=8)": 928,
    "phm(ffn, d=8)": 496,
    "compacter(reduction=8)": 928 + 3 * 64,  # with the norms
    "compacter_pp(reduction=8)": 496 + 3 * 64,
}


@pytest.mark.parametrize("name", TOY)
def test_counts_of_a_small_decoder(name: str) -> None:
    expected, counted = TOY[name]
    assert counted() == expected


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.split()[-1])
def test_counts_of_specs(spec: str) -> None:
    assert make_plan(Source("<spec>", spec), toy()).trainable == SPECS[spec]


# --- what may be added -------------------------------------------------------------


def test_a_text_adds_its_definitions() -> None:
    base = standard_library()
    more = base.with_file(file(MINE + "\nspec both(r = 4) = mine(q) + lora(q, r=r)"))
    assert set(more.methods) - set(base.methods) == {"mine"}
    assert set(more.macros) - set(base.macros) == {"both"}
    assert "mine" not in base.methods


@pytest.mark.parametrize("name", ["lora", "houlsby", "twice"])
def test_a_name_has_one_meaning(name: str) -> None:
    text = MINE.replace("mine", name)
    if name == "twice":
        text = f"{text}\nspec twice() = lora(q)"
    with pytest.raises(PeftcError) as caught:
        standard_library().with_file(file(text))
    assert codes(caught) == ["PEFT210"]


def test_all_that_is_wrong_with_a_file_at_once() -> None:
    text = f"{MINE.replace('mine', 'lora')}\n{MINE.replace('l *', 'k *')}"
    with pytest.raises(PeftcError) as caught:
        standard_library().with_file(file(text))
    assert codes(caught) == ["PEFT210", "PEFT230"]


# --- libraries of other packages ---------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that offers methods; importing it is an error."""
    folder = tmp_path / "other_methods"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError")
    (folder / "mine.peft").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def offering(value: str, monkeypatch: pytest.MonkeyPatch) -> Library:
    """The library where an installed package has this entry point."""
    entry = EntryPoint("mine", value, module.GROUP)
    monkeypatch.setattr(module, "entry_points", lambda group: [entry])
    standard_library.cache_clear()
    try:
        return standard_library()
    finally:
        standard_library.cache_clear()


@pytest.mark.usefixtures("package")
def test_methods_of_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    library = offering("other_methods:mine.peft", monkeypatch)
    assert library.methods["mine"].span.source.name == "<other_methods>/mine.peft"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    "value",
    [
        "other_methods:missing.peft",
        "no_such_package:mine.peft",
        "other_methods",
        "other_methods:mine.py",
        "other_methods:../mine.peft",
    ],
)
def test_unreadable(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PeftcError) as caught:
        offering(value, monkeypatch)
    assert codes(caught) == ["PEFT223"]


@pytest.mark.parametrize("text", ["let r = 8", "lora(q)", 'use "other.peft"'])
def test_definitions_only(
    text: str, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "mine.peft").write_text(f"{MINE}\n{text}")
    with pytest.raises(PeftcError) as caught:
        offering("other_methods:mine.peft", monkeypatch)
    assert codes(caught) == ["PEFT224"]


def test_a_package_cannot_replace_a_method(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "mine.peft").write_text(MINE.replace("mine", "lora"))
    with pytest.raises(PeftcError) as caught:
        offering("other_methods:mine.peft", monkeypatch)
    assert codes(caught) == ["PEFT210"]
