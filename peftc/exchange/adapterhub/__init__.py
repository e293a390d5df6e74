"""Folders of AdapterHub's `adapters`, which are read and not written.

In: a folder, and the view of a model.  Out: a draft.
"""
