"""The ten ways in which a compiled model could run without its methods, or wrongly.

Each rule of how methods enter a capture has a case that fails without it; here are the
cases.  A model either computes what hooks compute, or raises: nothing in between.
"""

from __future__ import annotations

import gc
import inspect
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from peftc.diagnostics.core import PeftcError
from peftc.passes import GRAPH_PIPELINE
from peftc.pipeline import Manager, load
from peftc.runtime.bind import layout, marker, read
from peftc.runtime.install import install
from peftc.runtime.tripwire import remove_tripwires
from tests.numerics.runtime.tiny import (
    added,
    bart,
    compiled,
    hooked,
    llama,
    logits,
    plan_for,
    refused,
    t5,
    tokens,
    twin,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def small() -> Any:
    return llama(layers=1)


def outer(module: nn.Module, **options: Any) -> Any:
    """The module under somebody else's `torch.compile`."""
    return torch.compile(module, backend="eager", **options)


def adapted(model: Any, base: Any) -> torch.Tensor:
    """What the compiled `model` has to say, from hooks on a copy of its base."""
    expected = logits(hooked(twin(base), model))
    assert not torch.equal(expected, logits(base))
    return expected


# --- 1: the marker never runs on real tensors -------------------------------------


@pytest.mark.parametrize("stance", ["force_eager", "eager_on_recompile"])
@pytest.mark.parametrize("called_before", [False, True])
def test_1_a_stance_that_runs_eagerly_is_refused(
    stance: Any, called_before: bool
) -> None:
    model = small()
    compiled(model)
    if called_before:
        logits(model)
    ids = tokens(3, 4) if called_before else tokens()
    with torch.compiler.set_stance(stance), refused("PEFT600"):
        logits(model, ids)


def test_1_the_marker_refuses_real_tensors() -> None:
    with refused("PEFT600"):
        marker("signature", [True], torch.zeros(2))


def test_1_switched_off_compilation_is_refused() -> None:
    model = small()
    compiled(model)
    with torch._dynamo.config.patch(disable=True), refused("PEFT600"):
        logits(model)
    logits(model)


class Wrapped(nn.Module):
    """Takes and gives a tensor, as tracers like it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> Any:
        return self.model(input_ids=ids, use_cache=False).logits


TRACERS: dict[str, Callable[[nn.Module], Any]] = {
    "export": lambda m: torch.export.export(m, (tokens(),), strict=False),
    "strict export": lambda m: torch.export.export(m, (tokens(),), strict=True),
    "trace": lambda m: torch.jit.trace(m, (tokens(),), check_trace=False),
    "make_fx": lambda m: make_fx(m)(tokens()),
    "fake make_fx": lambda m: make_fx(m, tracing_mode="fake")(tokens()),
    "vmap": lambda m: torch.vmap(m)(tokens()[:, None]),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tracer", TRACERS)
def test_1_other_tracers_are_refused_and_leave_no_mark(tracer: str) -> None:
    base = small()
    model = twin(base)
    compiled(model)
    with torch.no_grad(), pytest.raises((RuntimeError, PeftcError)):
        TRACERS[tracer](Wrapped(model))
    assert torch.equal(logits(model), adapted(model, base))


def test_1_a_functional_call_uses_the_tensors_it_is_given() -> None:
    base = small()
    model = twin(base)
    compiled(model)
    doubled = {name: 2 * p.detach() for name, p in added(model)}
    inputs = {"input_ids": tokens()}
    with torch.no_grad():
        found = torch.func.functional_call(model, doubled, (), inputs).logits
        for _, parameter in added(model):
            parameter.mul_(2)
    assert torch.equal(found, adapted(model, base))


# --- 2: no other capture looks inside ---------------------------------------------


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize("called_before", [False, True])
def test_2_an_outer_compile_stays_adapted(
    backend: str, fullgraph: bool, called_before: bool
) -> None:
    base = small()
    model = twin(base)
    compiled(model)
    if called_before:
        logits(model)
    compiled_again = torch.compile(model, backend=backend, fullgraph=fullgraph)
    assert torch.equal(logits(compiled_again), adapted(model, base))


def test_2_a_function_that_calls_the_model_stays_adapted() -> None:
    base = small()
    model = twin(base)
    compiled(model)
    double = torch.compile(lambda ids: model(input_ids=ids).logits * 2, backend="eager")
    with torch.no_grad():
        assert torch.equal(double(tokens()), adapted(model, base) * 2)


# --- 3: a capture without its sites is refused ------------------------------------


def test_3_a_graph_without_a_marker_is_refused() -> None:
    graph = fx.Graph()
    graph.output(graph.call_function(torch.add, (graph.placeholder("x"), 1)))
    model = small()
    with refused("PEFT602"):
        read(graph, [layout(plan_for(model), "s", model)], {})


@pytest.mark.parametrize("called_before", [False, True])
def test_3_a_replaced_module_is_refused(called_before: bool) -> None:
    model = small()
    compiled(model)
    if called_before:
        logits(model)
    model.model.layers[0].self_attn.q_proj = nn.Linear(32, 32, bias=False)
    with refused("PEFT603"):
        logits(model)


@torch._dynamo.allow_in_graph  # type: ignore[untyped-decorator]
def hidden_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A linear that a capture does not look into."""
    return x @ weight.t()


def test_3_a_linear_that_another_tool_replaced_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small()
    compiled(model)
    monkeypatch.setattr(
        F, "linear", lambda x, weight, bias=None: hidden_linear(x, weight)
    )
    with refused("PEFT430", "PEFT430"):
        logits(model)


@pytest.fixture
def _process_group(tmp_path: Any) -> Any:
    dist = torch.distributed
    store = f"file://{tmp_path}/store"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_process_group")
def test_3_ddp_does_not_split_the_graph() -> None:
    base = llama()
    model = twin(base)
    handle = compiled(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    reference = hooked(twin(base), model)
    parallel = nn.parallel.DistributedDataParallel(model, bucket_cap_mb=0.001)
    with torch._dynamo.config.patch(optimize_ddp=True):
        for _ in range(2):
            loss = parallel(input_ids=tokens(), labels=tokens()).loss
            loss.backward()
    assert handle.captures.count == 1
    assert loss.item() == reference(input_ids=tokens(), labels=tokens()).loss.item()


# --- 4: adapted modules run in our capture only -----------------------------------


def states(model: Any) -> torch.Tensor:
    """What the inner model says by itself."""
    with torch.no_grad():
        found = model.model(input_ids=tokens()).last_hidden_state
    assert isinstance(found, torch.Tensor)
    return found


def test_4_an_inner_model_is_adapted() -> None:
    base = small()
    model = twin(base)
    compiled(model)
    expected = states(hooked(twin(base), model))
    assert not torch.equal(expected, states(base))
    assert torch.equal(states(model), expected)
    assert torch.equal(logits(model), adapted(model, base))
    assert torch.equal(states(model), expected)


def layer(model: Any) -> Any:
    """A call of one layer, which is no model of its own."""
    x = torch.zeros(1, 3, 32)
    where = model.model.rotary_emb(x, torch.arange(3)[None])
    return lambda run=model.model.layers[0]: run(x, position_embeddings=where)


def test_4_calling_a_layer_is_refused() -> None:
    model = small()
    compiled(model)
    with refused("PEFT601"):
        layer(model)()
    logits(model)
    with refused("PEFT601"):
        layer(model)()


def test_4_compiling_a_layer_is_refused() -> None:
    model = small()
    compiled(model)
    with refused("PEFT601"):
        layer(model)(outer(model.model.layers[0]))
    with pytest.raises(Exception, match=r"PEFT601|peftc"):
        layer(model)(outer(model.model.layers[0], fullgraph=True))


def test_4_compiling_an_inner_model_stays_adapted() -> None:
    base = small()
    model = twin(base)
    compiled(model)
    expected = states(hooked(twin(base), model))
    for options in ({}, {"fullgraph": True}):
        inner = outer(model.model, **options)
        with torch.no_grad():
            found = inner(input_ids=tokens()).last_hidden_state
        assert torch.equal(found, expected)


def test_4_what_was_compiled_while_disabled_is_refused_after() -> None:
    model = small()
    inner = outer(model.model.layers[0])
    handle = compiled(model)
    with handle.disabled():
        layer(model)(inner)
    with refused("PEFT601"):
        layer(model)(inner)


@pytest.mark.parametrize("make", [t5, bart])
def test_4_the_encoder_is_adapted_in_training_and_generation(
    make: Callable[[], Any],
) -> None:
    base = make()
    model = twin(base)
    handle = compiled(model)
    reference = hooked(twin(base), model)
    ids, options = tokens(), {"max_new_tokens": 5, "do_sample": False}
    mine = model.generate(input_ids=ids, **options)
    assert torch.equal(mine, reference.generate(input_ids=ids, **options))
    assert [len(entry.layout.sites) for entry in handle.entries[:1]] == [6]
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    with torch.no_grad():
        encoded = model.get_encoder()(input_ids=ids, attention_mask=mask)[0]
        assert torch.equal(
            encoded, reference.get_encoder()(input_ids=ids, attention_mask=mask)[0]
        )
        plain = base.get_encoder()(input_ids=ids, attention_mask=mask)[0]
    assert not torch.allclose(encoded, plain, atol=1e-3)
    loss = model(input_ids=ids, labels=ids).loss
    assert loss.item() == reference(input_ids=ids, labels=ids).loss.item()


def count_nodes(model: Any) -> list[int]:
    found: list[int] = []

    def watch(name: str, graph: fx.Graph) -> None:
        found.append(len(graph.nodes))

    plan = plan_for(model)
    handle = install(model, plan, "", Manager(load(GRAPH_PIPELINE), watch))
    remove_tripwires(model, handle.switch)
    logits(model)
    return found


def test_4_the_tripwire_adds_no_node() -> None:
    found: list[int] = []
    model, bare = small(), small()
    without = count_nodes(bare)
    manager = Manager(
        load(GRAPH_PIPELINE), lambda name, graph: found.append(len(graph.nodes))
    )
    install(model, plan_for(model), "", manager)
    logits(model)
    assert found == without


# --- 5: captures of one model do not count against another's ----------------------


def test_5_eleven_models_of_different_shape() -> None:
    kept = []
    for index in range(11):
        base = llama(layers=1, hidden_size=16 + 8 * index, head_dim=8)
        model = twin(base)
        compiled(model)
        assert torch.equal(logits(model), adapted(model, base))
        kept.append(model)


def test_5_too_many_graphs_of_one_model_is_an_error() -> None:
    model = small()
    handle = compiled(model, limit=2, dynamic=False)
    with refused("PEFT605"):
        for columns in range(2, 6):
            logits(model, tokens(1, columns))
    assert handle.captures.count == 2


# --- 6: nothing is shared between layers or models --------------------------------


def test_6_layers_and_equal_models_keep_their_own_parameters() -> None:
    base = llama()
    models = [twin(base) for _ in range(2)]
    for seed, model in enumerate(models):
        compiled(model, plan=plan_for(model, init="normal(0.5)", seed=seed))
    one, other = (logits(model) for model in models)
    assert torch.equal(one, adapted(models[0], base))
    assert torch.equal(other, adapted(models[1], base))
    assert not torch.equal(one, other)
    model, reference = models[0], hooked(twin(base), models[0])
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    mine: dict[str, Any] = {name: p.grad for name, p in added(model)}
    model.zero_grad()
    reference(input_ids=tokens(), labels=tokens()).loss.backward()
    for name, parameter in added(model):
        assert parameter.grad is not None
        assert torch.equal(mine[name], parameter.grad), name
    assert len(mine) == 8


# --- 7: nothing holds the model ---------------------------------------------------


def test_7_a_model_is_freed() -> None:
    model = small()
    compiled(model)
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    held = [weakref.ref(model), *(weakref.ref(p) for p in model.parameters())]
    del model
    gc.collect()
    assert [ref() for ref in held] == [None] * len(held)


# --- 8: inserted nodes are whole --------------------------------------------------


def test_8_every_inserted_node_has_an_example_value() -> None:
    model = small()
    seen: list[fx.Graph] = []
    manager = Manager(load(GRAPH_PIPELINE), lambda name, graph: seen.append(graph))
    install(model, plan_for(model), "", manager)
    logits(model)
    nodes = list(seen[-1].nodes)
    inserted = [n for n in nodes if "peftc.site" in n.meta]
    assert inserted
    assert all("example_value" in n.meta for n in inserted)
    assert all(n.target is not marker for n in nodes)


@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
def test_8_compilers_behind_take_the_graph(backend: str) -> None:
    base = small()
    model = twin(base)
    compiled(model, backend=backend)
    reference = hooked(twin(base), model)
    loss = model(input_ids=tokens(), labels=tokens()).loss
    loss.backward()
    mine: dict[str, Any] = {name: p.grad for name, p in added(model)}
    model.zero_grad()
    expected = reference(input_ids=tokens(), labels=tokens()).loss
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-6)
    for name, parameter in added(model):
        torch.testing.assert_close(mine[name], parameter.grad, rtol=1e-5, atol=1e-7)


# --- 9: settings are made in the call ---------------------------------------------


def test_9_another_thread_runs_adapted_and_keeps_its_settings() -> None:
    base = small()
    model = twin(base)
    compiled(model)
    found: list[Any] = []

    def work() -> None:
        before = torch._dynamo.config.optimize_ddp
        found.append(logits(model))
        found.append(torch._dynamo.config.optimize_ddp == before)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = adapted(model, base)
    assert len(found) == 4
    for one in found:
        assert one is True or torch.equal(one, expected)


def test_9_a_hook_that_is_added_later_is_seen() -> None:
    model = small()
    compiled(model)
    before = logits(model)
    model.lm_head.register_forward_hook(lambda module, args, output: output + 1)
    assert torch.equal(logits(model), before + 1)


# --- 10: the signature is the original's ------------------------------------------


def test_10_the_signature_stays() -> None:
    base = small()
    expected = inspect.signature(base.forward)
    compiled(base)
    assert inspect.signature(base.forward) == expected
    assert "input_ids" in expected.parameters
