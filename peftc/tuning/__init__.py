"""Training, measuring and searching from the command line, thin on Trainer."""
