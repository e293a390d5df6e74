"""Joint programs as kernels: In: a `JointProgram`.  Out: text, for Triton and torch.

Neither is imported here.  `formulas` labels the axes of each step, `spaces` finds the
feature axes, `work` says what kind of work a value is, `parts` puts the work in order,
`split` gives it a form for few tokens, `tiles` and `template` write a kernel, `host`
and `source` what calls it.
"""
