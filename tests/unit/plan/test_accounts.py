"""The bytes of sites, counted by hand."""

from __future__ import annotations

import peftc
from peftc.codegen.accounts import Account, accounts
from peftc.expr.order import MACHINE
from tests.models import model

TOKENS = MACHINE.batch * MACHINE.tokens
WIDE, R = 64, 4


def found(spec: str) -> dict[str, Account]:
    plan = peftc.plan(spec, model("llama"))
    return {one.sites[0]: one for one in accounts(plan, MACHINE)}


def test_a_low_rank_update() -> None:
    """s = A x, y = W x + B s; ds = dy B, dx = dy W + ds A, dA = ds x, dB = dy s."""
    one = found(f"lora(q, r={R})")["layers.0.q"]
    x = y = TOKENS * WIDE
    s, a, w = TOKENS * R, R * WIDE, WIDE * WIDE
    element = MACHINE.element
    assert one.why == ""
    base, down, add = x + w + y, x + a + s, s + a + y + y
    assert one.forward[0] == element * (base + down + add)
    assert one.forward[1] == element * (x + w + a + a + y)
    assert one.kept == element * (x + s)
    assert one.backward is not None
    gradients = (x + s + a) + (y + s + a) + 4 * a  # scaled once more each
    through = (y + w + x) + (y + a + s) + (s + a + x + x)
    assert one.backward[0] == element * (gradients + through)
    assert one.backward[1] == element * (y + w + a + a + x + s + x + a + a)


def test_a_value_between_layers() -> None:
    """h + U act(D h): h is read twice and h' written, and there is no base."""
    one = found("adapter(ffn, d=4, act=relu)")["layers.0.ffn"]
    h, narrow = TOKENS * WIDE, TOKENS * 4
    down, up, offsets = 4 * WIDE, 4 * WIDE, 4 + WIDE
    element = MACHINE.element
    assert one.why == ""
    assert one.forward[1] == element * (h + down + up + offsets + h)
    products = (h + down + narrow) + (narrow + 4 + narrow) + (narrow + narrow)
    assert one.forward[0] == element * (
        products + (narrow + up + h) + (h + WIDE + h + h)
    )
    assert one.kept == element * (h + narrow)


def test_what_is_apart_says_why() -> None:
    every = found("pfeiffer(ffn, d=4) + prefix(k, v, p=2) + lora(gate, r=2)")
    assert every["layers.0.ffn"].why == "it reads `n`, which the graph computes"
    assert every["layers.0.ffn"].backward is None
    assert "but attention" in every["layers.0.attention"].why
    assert every["layers.0.attention"].kept is None
    assert not every["layers.0.gate"].why
    (stored,) = found("quantize(q) + lora(q, r=2)").values()
    assert not stored.why
    wide = "quantize(q, compute=float16) + lora(q, r=2)"
    assert "codes" in next(iter(found(wide).values())).why


def test_sites_of_one_size_that_run_otherwise_are_told_apart() -> None:
    """Of GPT-2 q is rows of a fused weight, and o as large a matrix of its own."""
    plan = peftc.plan("lora(q, o, r=2)", model("gpt2"))
    why = {one.sites[0]: one.why for one in accounts(plan, MACHINE)}
    assert why["layers.0.q"] == "it is some rows of a fused weight"
    assert why["layers.0.o"] == ""
