"""Names, arguments, macros and selectors: AST and ModelView to Spec."""
