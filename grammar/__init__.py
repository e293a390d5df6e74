"""The grammars, one `.lark` file per language; read with importlib.resources."""
