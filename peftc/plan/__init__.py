"""The Plan: what will be rewritten, where, with which parameters, at what cost."""
