"""Parameters, binding, execution, state and merge of a compiled model."""
