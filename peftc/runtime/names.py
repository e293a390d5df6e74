"""Where added tensors live in the model.

In: a site and the name of an added tensor.  Out: paths `<owner>.peftc.<role>.
<instance>.<tensor>`.  No torch: plans and reports name tensors by the same paths.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftc.plan.types import AddedTensor, StoredWeight
    from peftc.view import Site

CHILD = "peftc"
"""The child module that holds all that is added to the owner of a base weight."""

ROWS = "rows"
"""The buffer, and the key in `Capture.tensors`, of the numbers of a site's rows."""

STORED = "stored"
"""The child that holds the codes of weights; no role has this name."""

WHOLE = "whole"
"""Stands for the role of a site that has none: a weight selected by its path."""

# What torch.nn.Module already means something by; a test compares this with torch.
_TAKEN = frozenset(
    re.findall(
        r"\w+",
        """
    rows T_destination add_module apply bfloat16 buffers call_super_init children
    compile cpu cuda double dump_patches eval extra_repr float forward get_buffer
    get_extra_state get_parameter get_submodule half ipu load_state_dict modules
    mtia named_buffers named_children named_modules named_parameters parameters
    register_backward_hook register_buffer register_forward_hook
    register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_
    set_extra_state set_submodule share_memory smart_apply state_dict to to_empty train
    training type xpu zero_grad
        """,
    )
)


def attribute(name: str) -> str:
    """A part of a tensor's name as the name of a module's attribute."""
    plain = name.replace("#", "_")
    return f"{plain}_" if plain in _TAKEN or plain.startswith("_") else plain


def role_name(site: Site) -> str:
    """The name of the child that holds what is added for a site's role."""
    return (site.role or WHOLE).replace(".", "_")


def tensor_parts(site: Site, name: str) -> tuple[str, ...]:
    """The path of a tensor below its owner, in parts."""
    return (CHILD, role_name(site), *map(attribute, name.split(".")))


def tensor_path(site: Site, tensor: AddedTensor) -> str:
    """The path of an added tensor from the model."""
    return ".".join((site.owner, *tensor_parts(site, tensor.name)))


def code_parts(stored: StoredWeight, name: str) -> tuple[str, ...]:
    """The path of one tensor that is kept of a weight, below the weight's owner."""
    return (CHILD, STORED, attribute(stored.weight.rpartition(".")[2]), name)


def code_path(stored: StoredWeight, name: str) -> str:
    """The path of one tensor that is kept of a weight, from the model."""
    return ".".join((stored.weight.rpartition(".")[0], *code_parts(stored, name)))


def rows_path(site: Site) -> str:
    """The path of the row numbers of a site that is a non-contiguous row set."""
    return ".".join((site.owner, CHILD, role_name(site), ROWS))


def scattered(site: Site) -> bool:
    """Whether the site is rows that do not lie in one range."""
    return site.rows is not None and len(site.rows) > 1
