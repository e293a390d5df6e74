"""Capturing a forward: one graph, nothing run, nothing kept, the model as it was."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch
import transformers as hf
from torch import nn
from torch._dynamo.symbolic_convert import InliningInstructionTranslator

from peftc.diagnostics.core import PeftcError
from peftc.sites.capture import capture, ties
from peftc.sites.ops import name
from tests.unit.sites.toys import WIDTH, Function, Layer, Model, graph_of

if TYPE_CHECKING:
    from peftc.diagnostics.core import Diagnostic


def only(error: pytest.ExceptionInfo[PeftcError]) -> Diagnostic:
    (found,) = error.value.diagnostics
    assert found.exit_code == 3
    return found


def state(model: nn.Module) -> list[Any]:
    """Everything in a model that a capture could leave a trace in."""
    return [
        (name, sorted(module.__dict__), module.training, dict(module._forward_hooks))
        for name, module in model.named_modules()
    ]


@pytest.mark.parametrize("training", [False, True])
def test_the_model_stays_as_it_was(training: bool) -> None:
    model = Model(Layer()).train(training)
    before = state(model)
    tensors = {name: t.clone() for name, t in model.state_dict().items()}
    capture(model)
    assert state(model) == before
    assert all(torch.equal(model.state_dict()[n], t) for n, t in tensors.items())
    assert all(p.grad is None for p in model.parameters())


class Masking(Model):
    """Makes a mask of its own, but not while it is traced."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> Any:
        if attention_mask is None and not torch.compiler.is_compiling():
            attention_mask = torch.ones_like(input_ids)
        assert attention_mask is not None
        return self.out(self.table(input_ids) * attention_mask.unsqueeze(-1))


def test_a_model_that_needs_a_mask_gets_one() -> None:
    inputs = capture(Masking()).graph.find_nodes(op="placeholder")
    assert any("mask" in str(node.target) for node in inputs)


def test_mode_is_in_the_graph() -> None:
    drop = Model(nn.Dropout(0.5))
    calls = [
        next(n for n in capture(drop.train(mode)).graph.nodes if name(n) == "dropout")
        for mode in (True, False)
    ]
    assert [call.args[2] for call in calls] == [True, False]


def test_neither_graph_nor_tracer_keeps_the_parameters() -> None:
    model = Model(Layer())
    captured = capture(model)
    parameter = weakref.ref(model.out.weight)
    owner = weakref.ref(model)
    del model
    gc.collect()
    assert (parameter(), owner()) == (None, None)
    graph = weakref.ref(captured.module)
    del captured
    gc.collect()
    assert graph() is None


def test_a_failed_capture_keeps_nothing_either() -> None:
    model = Model(Function(lambda m, x: x if x.sum() > 0 else -x))
    owner = weakref.ref(model)
    with pytest.raises(PeftcError) as error:
        capture(model)
    only(error)
    del model, error
    gc.collect()
    assert owner() is None


def alarm(x: torch.Tensor) -> torch.Tensor:
    if not torch._subclasses.fake_tensor.is_fake(x):
        raise AssertionError("the forward was run")
    return x * 2


torch._dynamo.allow_in_graph(alarm)


def test_nothing_is_run() -> None:
    captured = capture(Model(Function(lambda m, x: alarm(x))))
    assert any(node.target is alarm for node in captured.graph.nodes)


def test_names_are_by_identity() -> None:
    model = Model(Layer(), Layer())
    model.layers[1].feed = model.layers[0].feed
    names = set(capture(model).names.values())
    assert names == {name for name, _ in model.named_parameters()}


def test_many_models_of_one_class_can_be_captured() -> None:
    limit = torch._dynamo.config.recompile_limit
    sizes = {
        len(capture(Model(*(Layer() for _ in range(n % 3)))).names)
        for n in range(limit + 2)
    }
    assert len(sizes) == 3


def test_compiled_code_of_the_user_stays_compiled() -> None:
    runs: list[int] = []

    def backend(gm: torch.fx.GraphModule, _: object) -> Any:
        runs.append(1)
        return gm.forward

    model = Model(Layer()).eval()
    compiled = torch.compile(model, backend=backend)
    tokens = torch.ones(2, 8, dtype=torch.long)
    compiled(tokens)
    capture(model)
    compiled(tokens)
    assert runs == [1]


def test_a_graph_break_is_said() -> None:
    """PEFT411."""
    with pytest.raises(PeftcError) as error:
        capture(Model(Function(lambda m, x: x if x.sum() > 0 else -x)))
    found = only(error)
    assert found.code == "PEFT411"
    assert "Data-dependent" in str(found)


def test_an_error_of_the_model_is_said() -> None:
    def forward(m: Any, x: torch.Tensor) -> Any:
        raise ValueError("no such input")

    with pytest.raises(PeftcError) as error:
        capture(Model(Function(forward)))
    assert "no such input" in str(only(error))


@pytest.mark.parametrize("how", ["config", "stance"])
def test_without_a_compiler_nothing_is_run_either(how: str) -> None:
    model = Model(Function(lambda m, x: alarm(x)))
    if how == "stance":
        with torch.compiler.set_stance("force_eager"):
            assert capture(model).names
        return
    with (
        torch._dynamo.config.patch(disable=True),
        pytest.raises(PeftcError) as error,
    ):
        capture(model)
    assert "switched off" in str(only(error))


def test_inputs_can_be_given() -> None:
    captured = capture(nn.Linear(WIDTH, 3), {"input": torch.zeros(4, WIDTH)})
    assert sorted(captured.names.values()) == ["bias", "weight"]


class Moving(nn.Module):
    """Assigns its buffer anew in its forward."""

    table: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Buffer(torch.ones(WIDTH), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.table = self.table.to(x.dtype)
        return x * self.table


def test_a_buffer_may_be_assigned_anew() -> None:
    model = Moving()
    assert any(name(n) == "mul" for n in graph_of(model).graph.nodes)
    assert not model.state_dict()
    assert [path for path, _ in model.named_buffers()] == ["table"]


def test_ties_are_in_the_order_of_the_model() -> None:
    model = Model()
    model.out.weight = model.table.weight
    assert ties(model) == dict.fromkeys(
        ("table.weight", "out.weight"), ("table.weight", "out.weight")
    )
    assert ties(Model()) == {}


def test_a_model_that_records_for_itself_is_traced() -> None:
    """Transformers hooks the layers under a lock, which cannot be traced."""
    facts: Any = {"hidden_sizes": [8, 8], "depths": [1, 1], "sr_ratios": [1, 1]}
    shared: Any = {"num_encoder_blocks": 2, "strides": [4, 2], "patch_sizes": [7, 3]}
    heads: Any = {"num_attention_heads": [1, 2], "decoder_hidden_size": 12}
    config = hf.SegformerConfig(**facts, **shared, **heads)
    with torch.device("meta"):
        model = hf.SegformerForSemanticSegmentation(config).eval()
    assert "decode_head.classifier.weight" in capture(model).names.values()


class Named(hf.PreTrainedConfig):
    """Keeps its width under another name."""

    attribute_map: ClassVar[dict[str, str]] = {"hidden_size": "width"}
    width: int = 3
    num_hidden_layers: int = 2


class Doubling(Named):
    """Looks attributes up in a way of its own."""

    def __getattribute__(self, name: str) -> Any:
        look_up: Any = super().__getattribute__
        value = look_up(name)
        return 2 * value if name == "width" else value


def reading(config: Any, name: str) -> Model:
    """A model that multiplies by an attribute of its configuration."""
    return Model(Function(lambda m, x: x * getattr(config, name)))


@pytest.mark.parametrize(
    ("config", "name", "value"),
    [(Named(), "hidden_size", 3), (Named(), "width", 3), (Doubling(), "width", 6)],
)
def test_a_configuration_is_read_as_it_reads_itself(
    config: Any, name: str, value: int
) -> None:
    assert getattr(config, name) == value
    nodes = capture(reading(config, name)).graph.nodes
    assert [n.args[1] for n in nodes if "mul" in str(n.target)] == [value]


def test_a_configuration_may_lack_what_is_asked_for() -> None:
    config = Named()
    asks = Function(lambda m, x: x * (2 if hasattr(config, "nothing") else 5))
    nodes = capture(Model(asks)).graph.nodes
    assert [n.args[1] for n in nodes if "mul" in str(n.target)] == [5]


def test_what_differs_between_layers_is_not_read_for_all_of_them() -> None:
    config = Named()
    config.per_layer_config = {1: {"width": 7}}
    with pytest.raises(PeftcError) as error:
        capture(reading(config, "width"))
    assert "AmbiguousGlobalPerLayerAttribute" in str(only(error))


def test_the_lookup_of_a_configuration_is_not_traced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traced = []
    inline = InliningInstructionTranslator.inline_call_

    def noting(self: Any) -> Any:
        traced.append(self.f_code.co_name)
        return inline(self)

    monkeypatch.setattr(InliningInstructionTranslator, "inline_call_", noting)
    capture(reading(Named(), "hidden_size"))
    assert "forward" in traced
    assert "__getattribute__" not in traced
