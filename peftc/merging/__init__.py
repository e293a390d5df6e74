"""Adapters written into the files of a base, tensor by tensor."""
