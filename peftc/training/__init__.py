"""What happens around the forward while training."""
