"""The equations: sizes, expression IR, meaning, normal form, order, merge."""
