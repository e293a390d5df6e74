"""The standard library: one method per `.peft` file, data only."""
