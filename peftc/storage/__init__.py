"""How a frozen weight is stored: formats with codes that are decoded where it is read.

`table` names the formats, their options and the tensors that each keeps; it loads
without torch.  A format is one file beside it with two functions, `encode` and
`decode`, that is loaded when a model is there.
"""
