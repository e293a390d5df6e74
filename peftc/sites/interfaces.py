"""What peftc uses of torch that torch does not promise to keep.

In: the installed packages.  Out: nothing, or a diagnostic that says which of them is
too old or lacks what.  `peftc.sites` asks when it is imported, before anything else
imports what may be missing.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from peftc.diagnostics.core import Diagnostics
from peftc.diagnostics.packages import UnsupportedVersion

if TYPE_CHECKING:
    from collections.abc import Iterable

OLDEST = {"torch": (2, 11), "transformers": (5, 0)}
TESTED = {"torch": "2.13", "transformers": "5.23"}

PRIVATE = (
    "torch._dispatch.python.enable_python_dispatcher",
    "torch._dynamo.OptimizedModule",
    "torch._dynamo.allow_in_graph",
    "torch._dynamo.assume_constant_result",
    "torch._dynamo.config.fail_on_recompile_limit_hit",
    "torch._dynamo.config.ignore_logging_functions",
    "torch._dynamo.config.optimize_ddp",
    "torch._dynamo.config.patch",
    "torch._dynamo.config.recompile_limit",
    "torch._dynamo.config.run_gc_after_compile",
    "torch._dynamo.config.skip_nnmodule_hook_guards",
    "torch._dynamo.config.suppress_errors",
    "torch._dynamo.disable",
    "torch._dynamo.exc.BackendCompilerFailed",
    "torch._dynamo.exc.FailOnRecompileLimitHit",
    "torch._dynamo.exc.InternalTorchDynamoError",
    "torch._dynamo.exc.Unsupported",
    "torch._dynamo.lookup_backend",
    "torch._dynamo.maybe_mark_dynamic",
    "torch._dynamo.reset",
    "torch._dynamo.trace_rules",
    "torch._dynamo.utils.compilation_time_metrics",
    "torch._dynamo.variables.TensorVariable",
    "torch._dynamo.variables.builtin",
    "torch._dynamo.variables.user_defined",
    "torch._functorch.config.ban_recompute_materialized_backward",
    "torch._functorch.config.patch",
    "torch._inductor.aoti_compile_and_package",
    "torch._inductor.cpp_builder.get_cpp_compiler",
    "torch._inductor.exc.InvalidCxxCompiler",
    "torch._ops.HigherOrderOperator",
    "torch._ops.OpOverload",
    "torch._subclasses.fake_tensor.FakeCopyMode",
    "torch._subclasses.fake_tensor.FakeTensor",
    "torch._subclasses.fake_tensor.FakeTensorMode",
    "torch._subclasses.fake_tensor.unset_fake_temporarily",
    "torch.amp.autocast_mode._enter_autocast",
    "torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression",
    "torch.fx.experimental.symbolic_shapes.ShapeEnv.produce_guards_expression",
    "torch.ops._c10d_functional.all_gather_into_tensor",
    "torch.ops._c10d_functional.wait_tensor",
    "torch.ops.aten._scaled_dot_product_flash_attention",
    "torch.ops.aten._scaled_dot_product_flash_attention_backward",
    "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu",
    "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward",
    "torch.ops.higher_order.tag_activation_checkpoint",
    "torch.utils._python_dispatch.TorchDispatchMode",
    "torch.utils._pytree.tree_leaves",
)


def check_interfaces(private: Iterable[str] = PRIVATE) -> None:
    """Refuse packages that are too old, or that lack what peftc uses.

    Raises:
        PeftcError: PEFT633 for each.
    """
    errors = Diagnostics()
    for package, oldest in OLDEST.items():
        if _numbers(version(package)) < oldest:
            wanted = ".".join(map(str, oldest))
            errors.add(_unsupported(package, f"{wanted} is the oldest that works"))
    errors.check()
    for name in private:
        try:
            resolve_name(name)
        except (ImportError, AttributeError):
            errors.add(_unsupported("torch", f"it has no `{name}`"))
    errors.check()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _unsupported(package: str, problem: str) -> UnsupportedVersion:
    return UnsupportedVersion(
        package=package,
        version=version(package),
        problem=problem,
        tested=TESTED[package],
    )
