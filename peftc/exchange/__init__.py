"""Adapters in other tools' formats: Hugging Face PEFT's, and plain low rank.

In: our adapter, or a folder of another tool.  Out: that folder, or a spec and the
tensors it needs.  Data flows one way: adapter and plan to `applied` methods, these to
settings and tensors by the other's names, these to files; and back, from a folder to a
spec and, once a plan is made of it for a model, its tensors.
"""
