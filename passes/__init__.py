"""The passes, one per file, and the order they run in."""
