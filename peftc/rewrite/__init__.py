"""The only functions that edit fx graphs."""
