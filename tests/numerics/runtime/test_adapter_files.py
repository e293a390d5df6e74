"""Adapter files: what is written is read back; whatever else is there is refused."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from peftc.api import compile, load
from peftc.plan.parse import parse_plan
from peftc.runtime.state import FILE, read_adapter
from tests.numerics.runtime.tiny import (
    added,
    assert_same,
    llama,
    logits,
    refused,
    snapshot,
    twin,
)

if TYPE_CHECKING:
    from pathlib import Path

SPEC = "lora(q, v, r=2)"
A = "model.layers.0.self_attn.q_proj.peftc.q.lora.A"


@pytest.fixture(scope="module")
def base() -> Any:
    return llama(layers=1)


def tuned(base: Any, spec: str = SPEC) -> Any:
    """A compiled copy whose tensors are as if trained."""
    model = compile(twin(base), spec)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for _, parameter in added(model):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 5)
    return model


@pytest.fixture(scope="module")
def written(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a good adapter."""
    folder = tmp_path_factory.mktemp("good")
    tuned(base).peftc.save(folder)
    return folder


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        found: dict[str, str] = file.metadata()
    return found


def altered(written: Path, folder: Path, change: Any) -> Path:
    """A copy of the good file; `change` edits its tensors and its metadata."""
    tensors, facts = load_file(written / FILE), metadata(written / FILE)
    change(tensors, facts)
    save_file(tensors, folder / FILE, facts)
    return folder


def refuse(base: Any, folder: Path, *codes: str) -> None:
    """Both ways of loading refuse the folder, and neither changes the model."""
    bare = twin(base)
    before = snapshot(bare)
    with refused(*codes):
        load(bare, folder)
    assert_same(snapshot(bare), before)
    model = compile(twin(base), SPEC)
    before = snapshot(model)
    with refused(*codes):
        model.peftc.load(folder)
    assert_same(snapshot(model), before)


# --- good files ----------------------------------------------------------------------


def test_load_gives_the_same_logits(base: Any, tmp_path: Path) -> None:
    model = tuned(base)
    path = model.peftc.save(tmp_path / "new" / "folder")
    assert os.listdir(path.parent) == [FILE]
    other = load(twin(base), path.parent)
    assert torch.equal(logits(other), logits(model))
    third = compile(twin(base), SPEC)
    tensors = dict(added(third))
    third.peftc.load(path)
    assert torch.equal(logits(third), logits(model))
    assert dict(added(third)) == tensors
    assert not third.peftc.report()["any_base"]


def test_the_file_holds_spec_plan_seed_and_base(base: Any, written: Path) -> None:
    adapter = read_adapter(written)
    assert adapter.spec == SPEC
    assert adapter.seed == 0
    plan = parse_plan(adapter.plan)
    assert [r.site.role for r in plan.rewrites] == ["q", "v"]
    assert adapter.tensors.keys() == {name for name, _ in added(tuned(base))}
    assert set(metadata(written / FILE)) == {
        *("format", "format_version", "peftc_version", "spec", "plan", "plan_hash"),
        *("base", "seed", "any_base"),
    }


def test_shared_tensors_and_buffers_are_written_once(base: Any, tmp_path: Path) -> None:
    model = tuned(base, "vera(q, v, r=4)")
    path = model.peftc.save(tmp_path)
    names = load_file(path).keys()
    assert sum("whole" in n or n.count(".peftc.") == 1 for n in names) == len(names)
    other = load(twin(base), tmp_path)
    assert torch.equal(logits(other), logits(model))


# --- other bases, other plans --------------------------------------------------------


def test_another_base_is_refused(base: Any, written: Path) -> None:
    refuse(llama(seed=1, layers=1), written, "PEFT625")
    refuse(twin(base).to(torch.bfloat16), written, "PEFT625")


def test_one_flipped_bit_in_any_tensor_is_refused(base: Any, written: Path) -> None:
    model = compile(twin(base), SPEC)
    for name, parameter in model.named_parameters():
        if ".peftc." in name:
            continue
        words = parameter.data.view(torch.int32).view(-1)
        words[-1] ^= 1
        with refused("PEFT625"):
            model.peftc.load(written)
        words[-1] ^= 1
    model.peftc.load(written)


def test_another_configuration_is_refused(base: Any, written: Path) -> None:
    other = twin(base)
    other.config.rms_norm_eps = 0.1
    refuse(other, written, "PEFT625")


def test_any_base_is_recorded(base: Any, written: Path, tmp_path: Path) -> None:
    other = load(llama(seed=1, layers=1), written, any_base=True)
    assert other.peftc.report()["any_base"]
    other.peftc.save(tmp_path)
    assert read_adapter(tmp_path).any_base
    again = load(llama(seed=1, layers=1), tmp_path)
    assert again.peftc.report()["any_base"]
    assert not read_adapter(written).any_base


@pytest.mark.parametrize(
    "spec", ["lora(q, v, r=3)", "lora(q, v, r=2, alpha=8)", "lora(q, r=2)", "ia3(k)"]
)
def test_another_plan_is_refused(base: Any, written: Path, spec: str) -> None:
    model = compile(twin(base), spec)
    before = snapshot(model)
    with refused("PEFT626"):
        model.peftc.load(written)
    assert_same(snapshot(model), before)


def test_where_a_spec_was_written_does_not_matter(base: Any, written: Path) -> None:
    model = compile(twin(base), f"\n\n  {SPEC}", seed=3)
    model.peftc.load(written)


# --- damage --------------------------------------------------------------------------


def test_nothing_there(base: Any, tmp_path: Path) -> None:
    refuse(base, tmp_path, "PEFT620")
    refuse(base, tmp_path / "no" / "where", "PEFT620")


def test_what_is_no_regular_file(base: Any, written: Path, tmp_path: Path) -> None:
    kinds = {"folder": tmp_path / "a", "pipe": tmp_path / "b", "link": tmp_path / "c"}
    for folder in kinds.values():
        folder.mkdir()
    (kinds["folder"] / FILE).mkdir()
    os.mkfifo(kinds["pipe"] / FILE)
    (kinds["link"] / FILE).symlink_to(written / FILE)
    for folder in kinds.values():
        refuse(base, folder, "PEFT620")


def test_an_absurdly_large_file_is_not_read(base: Any, tmp_path: Path) -> None:
    with open(tmp_path / FILE, "wb") as file:
        file.truncate(2**40)
    refuse(base, tmp_path, "PEFT620")


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100, -1])
def test_a_truncated_file(base: Any, written: Path, tmp_path: Path, size: int) -> None:
    (tmp_path / FILE).write_bytes((written / FILE).read_bytes()[:size])
    refuse(base, tmp_path, "PEFT621")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04garbage" * 50,
        (10**15).to_bytes(8, "little") + b"{}",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        b"\x02\x00\x00\x00\x00\x00\x00\x00{}trailing",
    ],
    ids=["garbage", "huge header", "nested", "trailing"],
)
def test_garbage(base: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    refuse(base, tmp_path, "PEFT621")


def changes() -> dict[str, tuple[str, Any]]:
    bad = torch.full((2, 32), float("nan"))
    infinite = torch.zeros(2, 32)
    infinite[1, 3] = float("inf")
    return {
        "surplus": ("PEFT623", lambda t, m: t.update(x=torch.zeros(1))),
        "path": ("PEFT623", lambda t, m: t.update({"../../etc/x": torch.zeros(1)})),
        "class": ("PEFT623", lambda t, m: t.update(__class__=torch.zeros(1))),
        "base": ("PEFT623", lambda t, m: t.update({"lm_head.weight": torch.zeros(1)})),
        "missing": ("PEFT623", lambda t, m: t.pop(A)),
        "shape": ("PEFT623", lambda t, m: t.update({A: torch.zeros(32, 2)})),
        "dtype": ("PEFT623", lambda t, m: t.update({A: t[A].double()})),
        "nan": ("PEFT624", lambda t, m: t.update({A: bad})),
        "infinite": ("PEFT624", lambda t, m: t.update({A: infinite})),
        "other file": ("PEFT622", lambda t, m: m.clear()),
        "version": ("PEFT622", lambda t, m: m.update(format_version="99")),
        "no plan": ("PEFT622", lambda t, m: m.pop("plan")),
        "altered plan": (
            "PEFT622",
            lambda t, m: m.update(plan=m["plan"].replace("alpha=16", "alpha=32")),
        ),
        "seed": ("PEFT622", lambda t, m: m.update(seed="-1; import os")),
        "fingerprint": ("PEFT622", lambda t, m: m.update(base="[" * 100_000)),
        "no fingerprint": ("PEFT622", lambda t, m: m.update(base="{}")),
    }


@pytest.mark.parametrize("name", changes())
def test_a_file_with_other_content(
    base: Any, written: Path, tmp_path: Path, name: str
) -> None:
    code, change = changes()[name]
    refuse(base, altered(written, tmp_path, change), code)


def test_an_unreadable_plan(base: Any, written: Path, tmp_path: Path) -> None:
    folder = altered(written, tmp_path, lambda t, m: m.update(plan="plan? what plan"))
    with refused("PEFT306"):
        load(twin(base), folder)
    model = compile(twin(base), SPEC)
    with refused("PEFT622"):
        model.peftc.load(folder)


def test_nothing_else_in_the_folder_is_opened(base: Any, written: Path) -> None:
    (written / "adapter.bin").write_bytes(b"\x80\x04.")
    (written / "adapter_model.bin").write_bytes(b"\x80\x04.")
    opened: list[str] = []
    active = [True]

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if active[0] and event in ("open", "pickle.find_class"):
            opened.append(f"{event} {args[0]}")

    model = compile(twin(base), SPEC)
    sys.addaudithook(audit)
    model.peftc.load(written)
    active[0] = False
    inside = [one for one in opened if str(written) in one or "pickle" in one]
    assert inside == [f"open {written / FILE}"]


# --- writing --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_not_written(
    base: Any, tmp_path: Path, value: float
) -> None:
    model = tuned(base)
    model.peftc.save(tmp_path)
    before = (tmp_path / FILE).read_bytes()
    for name, parameter in added(model):
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[-1] = value
        with refused("PEFT624"):
            model.peftc.save(tmp_path)
        with pytest.raises(Exception, match=name):
            model.peftc.save(tmp_path)
        with torch.no_grad():
            parameter.copy_(kept)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_model_without_values_is_not_written(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = llama(layers=1)
    compile(model, SPEC)
    with refused("PEFT631"):
        model.peftc.save(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_file(
    base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tuned(base)
    model.peftc.save(tmp_path)
    before = (tmp_path / FILE).read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("peftc.files.os.fsync", full)
    with refused("PEFT627"):
        model.peftc.save(tmp_path)
    assert os.listdir(tmp_path) == [FILE]
    assert (tmp_path / FILE).read_bytes() == before


def test_a_folder_that_cannot_be_made(base: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with refused("PEFT627"):
        tuned(base).peftc.save(tmp_path / "file")
