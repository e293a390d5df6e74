"""`peftc bench`: rows, files, what is refused, what is missing, an interruption."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from peftc.bench import agreement, peers, run, timing, workloads
from peftc.bench.cases import CASES, Case
from peftc.bench.links import links
from peftc.bench.peers import EAGER, FROZEN, PEFT, PLAIN
from peftc.bench.suites import SUITES, Ask, Suite
from peftc.rewrite import recomputed
from peftc.tuning import extras
from tests.ecosystem.commands import ok, peftc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


def result(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "bench.json").read_bytes())
    return read


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quick suite, with all that can be asked for on a processor."""
    folder = tmp_path_factory.mktemp("bench") / "report"
    page = folder.parent / "page.md"
    page.write_text("<!-- peftc bench: begin -->\n<!-- peftc bench: end -->\n")
    told = ("--rounds", "2", "--wall", "--profile", "--docs", str(page))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recomputed, "LEAST", 0)  # all that the tiny model has is less
        done = ok("bench", "-o", str(folder), *told)
    assert "tiny lora" in done.stdout
    return folder


def test_every_round_is_kept(found: Path) -> None:
    (row,) = result(found)["rows"]
    names = [FROZEN, EAGER, PLAIN, PEFT]
    assert [list(one) for one in row["rounds"]] == [names] * 2
    assert [list(one) for one in row["wall"]] == [names] * 2
    assert all(0 < t < 10 for one in row["rounds"] for t in one.values())
    assert set(row["first"]) == set(row["saved"]) == set(names)
    assert row["saved"][FROZEN] < row["saved"][PLAIN] <= row["saved"][PEFT]
    assert row["saved"][EAGER] < row["saved"][PLAIN]
    assert row["graphs"]["train again"] == row["graphs"]["evaluate"] == 2


def test_losses_and_gradients_are_compared(found: Path) -> None:
    (row,) = result(found)["rows"]
    assert row["apart"].keys() == {PLAIN, PEFT}
    for one in row["apart"].values():
        assert one["loss"] <= 1e-5
        assert 0 < one["gradient"] <= 1e-3


def test_it_says_where_figures_are_from(found: Path) -> None:
    read = result(found)
    assert {"torch", "peft", "transformers"} <= read["machine"]["versions"].keys()
    assert read["machine"]["processor"]
    assert read["command"].split()[0] == "peftc"
    assert not read["interrupted"]


def test_the_files_show_the_same(found: Path) -> None:
    text = (found / "bench.md").read_text()
    (row,) = result(found)["rows"]
    least = min(1000 * one[PEFT] for one in row["rounds"])
    assert f"| {least:.1f} |" in text
    assert "| aten::mm |" in text
    assert (found / "bench.png").read_bytes().startswith(b"\x89PNG")
    page = (found.parent / "page.md").read_text()
    assert f"| {least:.1f} |" in page


def test_a_profile_tells_operations(found: Path) -> None:
    (row,) = result(found)["rows"]
    assert row["operations"]["aten::mm"][FROZEN][1] == 16
    assert row["operations"]["Torch-Compiled Region"].keys() == {EAGER, PLAIN}


def doubled(base: Any, case: Case) -> Any:
    """A peer that scales its update in another way."""
    model = peers._peft(base, case)
    for module in model.modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict):  # attentions have a number of this name
            scaling["default"] *= 2
    return model


def test_unequal_losses_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(peers.PEERS, PEFT, peers.Peer("wrong", doubled))
    more = (*SUITES["quick"].asks, Ask(workloads.TINY, CASES["bitfit"], (PLAIN,)))
    monkeypatch.setitem(SUITES, "quick", Suite(more, 1))
    done = peftc("bench", "-o", str(tmp_path / "out"))
    assert done.exit_code == 4
    assert "PEFT710" in done.stderr
    refused, other = result(tmp_path / "out")["rows"]
    assert "the loss of `PEFT` and `eager` differ" in refused["problem"]
    assert refused["rounds"] == []
    assert len(other["rounds"]) == 1


def test_unequal_gradients_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a peer whose losses are the same."""

    def doubles(parameter: Any) -> None:
        parameter.grad.mul_(2)

    def part(base: Any, case: Case) -> Any:
        model = peers._peft(base, case)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.register_post_accumulate_grad_hook(doubles)
        return model

    monkeypatch.setitem(peers.PEERS, PEFT, peers.Peer("wrong", part))
    done = peftc("bench", "-o", str(tmp_path / "out"))
    assert done.exit_code == 4
    assert "the gradient of `PEFT`" in result(tmp_path / "out")["rows"][0]["problem"]


def test_a_missing_peer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "is_there", lambda package: False)
    told = ("--peers", "frozen,plain,peft,peft-+-liger,adapterhub", "--rounds", "1")
    done = ok("bench", "-o", str(tmp_path / "out"), *told)
    for package in ("peft", "liger_kernel", "adapters"):
        assert f"the package `{package}` is not installed" in done.stderr
    (row,) = result(tmp_path / "out")["rows"]
    assert list(row["rounds"][0]) == [FROZEN, PLAIN]
    assert row["missing"].keys() == {PEFT, "PEFT + Liger", "AdapterHub"}


def test_a_method_without_counterpart_says_so(tmp_path: Path) -> None:
    told = ("--methods", "bitfit", "--rounds", "1")
    done = ok("bench", "-o", str(tmp_path / "out"), *told)
    assert "`PEFT` is missing (tiny bitfit): PEFT has no such method" in done.stderr
    assert [row["method"] for row in result(tmp_path / "out")["rows"]] == ["bitfit"]


def test_without_matplotlib_there_is_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = extras.is_there
    monkeypatch.setattr(
        "peftc.tuning.picture.is_there", lambda p: p != "matplotlib" and there(p)
    )
    told = ("--peers", "frozen", "--rounds", "1")
    done = ok("bench", "-o", str(tmp_path / "out"), *told)
    assert "matplotlib is not installed" in done.stderr
    assert not (tmp_path / "out" / "bench.png").exists()


def test_an_interrupted_run_writes_its_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = timing.rounds

    def pressed(*args: Any) -> Iterator[Any]:
        for number, one in enumerate(real(*args)):
            if number == 3:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(run, "rounds", pressed)
    done = peftc("bench", "-o", str(tmp_path / "out"), "--rounds", "9")
    assert done.exit_code == 130
    read = result(tmp_path / "out")
    assert read["interrupted"]
    assert len(read["rows"][0]["rounds"]) == 2  # the first of three is not counted
    assert "interrupted" in (tmp_path / "out" / "bench.md").read_text()


def test_stages_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUITES, "compile", Suite((), 1, (1, 2)))
    monkeypatch.setattr(run, "REPEATS", 1)
    done = ok("bench", "--suite", "compile", "-o", str(tmp_path / "out"), "--json")
    first, second = json.loads(done.stdout)["stages"]
    assert (first["layers"], first["linears"]) == (1, 7)
    assert (second["layers"], second["linears"]) == (2, 14)
    names = ("capture", "sites", "plan", "install", "rewrite")
    assert all(second[name] > 0 for name in names)
    assert second["own"] == pytest.approx(sum(second[name] for name in names[1:]))


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    out = ("-o", str(tmp_path / "out"))
    assert "PEFT711" in peftc("bench", "--suite", "cup", *out).stderr
    assert "did you mean `dora`" in peftc("bench", "--methods", "dorra", *out).stderr
    assert "PEFT711" in peftc("bench", "--peers", "nobody", *out).stderr
    assert "PEFT711" in peftc("bench", "--workloads", "C1", *out).stderr
    assert "PEFT712" in peftc("bench", "--docs", str(tmp_path / "no.md"), *out).stderr
    assert "PEFT713" in peftc("bench", "--device", "cuda", *out).stderr
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "PEFT660" in peftc("bench", *out).stderr


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.config])
def test_all_that_peft_trains_has_a_counterpart(name: str) -> None:
    case = CASES[name]
    base = workloads.C1.of_depth(1).base(0)
    models, missing = peers.built((PLAIN, PEFT), case, workloads.C1, base)
    assert missing == {}
    reference = agreement.start_alike(models, case, 0)
    pairs = links(models[reference], models[PEFT], case)
    ours = sum(p.numel() for p in models[PLAIN].parameters() if p.requires_grad)
    theirs = sum(p.numel() for p in models[PEFT].parameters() if p.requires_grad)
    assert ours == theirs == sum(pair.ours.numel() for pair in pairs)
    batch = workloads.C1.inputs(0)
    apart = agreement.check(models, case, batch, "row", "float32")
    assert apart[PEFT]["gradient"] <= 1e-3
