"""The passes, one per file, and the order they run in.

Order is data: add a pass by adding its file and its name here.
"""

PLAN_PIPELINE = ("check-sizes", "derive-merge", "order-evaluation", "estimate-memory")
"""Plan to Plan, before any model is touched."""

GRAPH_PIPELINE = (
    "rewrite-linears",
    "rewrite-rows",
    "rewrite-attention",
    "rewrite-positions",
    "rewrite-inputs",
    "rewrite-edges",
    "rewrite-norms",
    "verify-rewrites",
    "recompute-inputs",
    "decode-storage",
)
"""On every captured graph of a compiled model."""

PIPELINE = PLAN_PIPELINE + GRAPH_PIPELINE
