"""Text of what will run: ordered programs as torch operations."""
