"""The command line, command by command: product, narration, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from peftc.cli.main import app
from peftc.codegen.joint_text import joint_text, parse_joint
from peftc.plan.parse import parse_plan
from peftc.plan.print import plan_text
from tests.ecosystem.small import byte_llama

ROOT = Path(__file__).parent.parent.parent
TINY = str(ROOT / "examples" / "tiny_llama")
CONFIG = str(ROOT / "examples" / "tiny_llama" / "config.json")
SPEC = "lora(q, v, r=2) + adapter(ffn, d=3) @ layers(0)"


def peftc(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


def ok(*args: str) -> Result:
    result = peftc(*args)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled") / "out"
    ok("compile", "lora(q, v, r=2)", TINY, "-o", str(folder))
    return folder


def test_check_needs_no_model() -> None:
    assert "2 applications" in ok("check", SPEC).stderr
    result = peftc("check", "lora(q, vv)")
    assert result.exit_code == 1
    assert "error[PEFT201]" in result.stderr
    assert result.stdout == ""


def test_check_for_programs() -> None:
    result = peftc("check", "lora(q, vv) + lora(q, r=0)", "--json")
    record = json.loads(result.stdout)
    assert [d["code"] for d in record["diagnostics"]] == ["PEFT201", "PEFT218"]
    assert record["version"] == 1
    assert json.loads(ok("check", SPEC, "--json").stdout)["diagnostics"] == []


def test_plan_from_a_bare_configuration() -> None:
    assert "trainable" in ok("plan", SPEC, CONFIG).stdout
    text = ok("plan", SPEC, CONFIG, "--text").stdout
    assert plan_text(parse_plan(text)) == text
    record = json.loads(ok("plan", SPEC, TINY, "--json").stdout)
    assert record["trainable"] == 5 * 2 * (192 + 192 + 192 + 64) + 2 * 192 * 3 + 195


def test_plan_shows_forward_and_backward_of_each_kind_of_site() -> None:
    text = ok("plan", SPEC, CONFIG, "--joint", "--machine", "tokens=64").stdout
    heads = [line for line in text.splitlines() if line.startswith("# ")]
    assert [head.partition(":")[0] for head in heads] == ["# 5 sites"] * 2 + [
        "# 1 site"
    ]
    first = text.split("\n\n")[0].partition("\n")[2]
    program = parse_joint(first)
    assert joint_text(program) == first + "\n"
    assert program.machine.tokens == 64
    assert [name for name, _ in program.backward.results] == ["x", "lora.A", "lora.B"]


def test_a_site_without_a_joint_program_says_why() -> None:
    text = ok("plan", "ptuning(p=3)", CONFIG, "--joint").stdout
    assert text.splitlines()[1].startswith("# no joint program: bilstm: a recurrent")


def test_a_machine_that_is_none_is_a_usage_error() -> None:
    result = peftc("plan", SPEC, CONFIG, "--machine", "speed=1")
    assert result.exit_code == 2
    assert "no number of a machine: speed=1" in " ".join(result.stderr.split())


def test_print_ir_after_all_shows_every_pass() -> None:
    shown = ok("plan", SPEC, CONFIG, "--print-ir-after-all").stderr
    passes = [line for line in shown.splitlines() if line.startswith("=== after")]
    assert passes == [
        f"=== after {name}"
        for name in (
            "build",
            "check-sizes",
            "derive-merge",
            "order-evaluation",
            "estimate-memory",
        )
    ]


def test_compile_writes_an_artefact_one_can_read(artefact: Path) -> None:
    assert {p.name for p in artefact.iterdir()} == {
        "spec.peft",
        "plan.txt",
        "plan.json",
        "graph.txt",
        "programs.py",
        "kernels",
        "adapter.safetensors",
    }
    graph = (artefact / "graph.txt").read_text()
    assert "model.layers.0.self_attn.q_proj:q.lora.A" in graph
    assert (artefact / "spec.peft").read_text() == "lora(q, v, r=2)\n"
    compile((artefact / "programs.py").read_text(), "programs.py", "exec")
    for path in (artefact / "kernels").glob("*.py"):
        compile(path.read_text(), path.name, "exec")


def test_compile_says_what_graph_passes_made(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    shown = ok("compile", "lora(q)", TINY, "-o", out, "--print-ir-after-all").stderr
    for name in ("rewrite-linears", "rewrite-edges", "verify-rewrites"):
        assert f"=== after {name}" in shown


def test_merge_writes_a_plain_model(artefact: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    merged = tmp_path / "merged"
    ok("merge", str(artefact), TINY, "-o", str(merged))
    names = set(AutoModelForCausalLM.from_pretrained(merged).state_dict())
    base = set(AutoModelForCausalLM.from_pretrained(TINY).state_dict())
    assert names == base


def test_generate_with_and_without_an_adapter(artefact: Path) -> None:
    options = ("The ", "--bytes", "--tokens", "12")
    plain = ok("generate", TINY, *options).stdout
    assert ok("generate", TINY, "The ", "--tokens", "12").stdout == plain
    assert plain.startswith("The ")
    assert ok("generate", TINY, *options, "--adapter", str(artefact)).stdout == plain
    sampled = ok("generate", TINY, *options, "--sample", "--seed", "3").stdout
    assert sampled == ok("generate", TINY, *options, "--sample", "--seed", "3").stdout


def test_generate_needs_a_tokenizer(tmp_path: Path) -> None:
    model = byte_llama(tmp_path, vocab_size=1000)
    result = peftc("generate", model, "hello")
    assert result.exit_code == 3
    assert "PEFT662" in result.stderr


def test_fmt_is_canonical_and_checks(tmp_path: Path) -> None:
    file = tmp_path / "spec.peft"
    file.write_text("lora( q,v ,r = 8 ) # why\n")
    result = peftc("fmt", "--check", str(file))
    assert result.exit_code == 1
    assert "PEFT663" in result.stderr
    assert file.read_text() == "lora( q,v ,r = 8 ) # why\n"
    assert ok("fmt", "--stdout", str(file)).stdout == "lora(q, v, r=8)  # why\n"
    ok("fmt", str(file))
    assert file.read_text() == "lora(q, v, r=8)  # why\n"
    ok("fmt", "--check", str(file))


def test_methods_lists_the_library() -> None:
    record = json.loads(ok("methods", "--json").stdout)
    names = {row["name"] for row in record["methods"]}
    assert {"lora", "ia3", "bitfit", "krona", "adapter", "houlsby"} <= names
    assert "lora" in ok("methods").stdout


def test_explain_knows_codes_and_methods() -> None:
    assert "PEFT201" in ok("explain", "PEFT201").stdout
    assert ok("explain", "peft201").stdout == ok("explain", "201").stdout
    assert "method lora(" in ok("explain", "lora").stdout
    assert "spec houlsby(" in ok("explain", "houlsby").stdout
    for topic in ("PEFT999", "loar"):
        result = peftc("explain", topic)
        assert result.exit_code == 1
        assert "PEFT661" in result.stderr


def test_explain_tells_what_sites_run_on() -> None:
    spec = "lora(q, r=4) + prefix(k, v)"
    text = ok("explain", "--kernels", spec, TINY).stdout
    assert re.search(r"layers\.0\.q and \d+ more +one step", text)
    assert re.search(r"layers\.0\.attention .*operations", text)
    assert peftc("explain", "--kernels", spec).exit_code == 2
    assert peftc("explain", spec, TINY).exit_code == 2


BAD = [
    (("plan", "lora(q)", "/no/such/model"), 3, "PEFT400"),
    (("compile", "lora(q)", CONFIG, "-o", "OUT"), 3, "PEFT404"),
    (("compile", "lora(router)", TINY, "-o", "OUT"), 1, "PEFT203"),
    (("compile", "lora(q, r=1000000000000)", TINY, "-o", "OUT"), 1, "PEFT302"),
    (("compile", "lora(q", TINY, "-o", "OUT"), 1, "PEFT104"),
    (("merge", "/no/such/adapter", TINY, "-o", "OUT"), 3, "PEFT620"),
    (("generate", TINY, "x", "--bytes", "--adapter", "/no/such"), 3, "PEFT620"),
    (("check", "/no/such/spec.peft"), 1, "PEFT270"),
]


@pytest.mark.parametrize(("args", "code", "name"), BAD)
def test_bad_input_writes_nothing(
    args: tuple[str, ...], code: int, name: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = peftc(*(str(out) if a == "OUT" else a for a in args))
    assert result.exit_code == code, result.output
    assert name in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_peftc_did_not_write_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = peftc("compile", "lora(q)", TINY, "-o", str(tmp_path))
    assert result.exit_code == 1
    assert "PEFT660" in result.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_merge_does_not_replace_a_model(artefact: Path, tmp_path: Path) -> None:
    """A folder with a config.json may be anybody's model: even the base itself."""
    (tmp_path / "config.json").write_text("{}")
    result = peftc("merge", str(artefact), TINY, "-o", str(tmp_path))
    assert result.exit_code == 1
    assert "PEFT660" in result.stderr


def test_a_crash_leaves_a_reproducer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("the planner broke")

    import peftc.passes.order_evaluation as pass_file

    monkeypatch.setattr(pass_file, "order", broken)
    result = peftc("plan", SPEC, CONFIG)
    assert result.exit_code == 70
    assert "error[PEFT901]" in result.stderr
    (folder,) = tmp_path.glob("peftc-reproducer-*")
    assert folder.name in result.stderr
    assert (folder / "spec.peft").read_text() == SPEC
    before = parse_plan((folder / "plan.txt").read_text())
    assert before.rewrites[0].merge.kind == "exact"
    assert before.rewrites[0].programs == ()
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["stage"] == "order-evaluation"
    assert facts["versions"]["torch"]
    assert "the planner broke" in (folder / "traceback.txt").read_text()


@pytest.mark.slow
def test_a_program_is_written_whole_or_not_at_all(
    artefact: Path, tmp_path: Path
) -> None:
    line = ("export", str(artefact), "--to", "pt2")
    done = ok(*line, "--model", TINY, "-o", str(tmp_path / "out"))
    assert f"wrote {tmp_path / 'out' / 'program.pt2'}" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["program.pt2"]
    other = (*line, "--model", CONFIG, "--random-init", "1")
    assert peftc(*other, "-o", str(tmp_path / "no")).exit_code == 3
    without = peftc(*line, "-o", str(tmp_path / "no"))
    assert without.exit_code == 1
    assert "PEFT734" in without.stderr
    assert not (tmp_path / "no").exists()
