"""peftc: the compiler for parameter-efficient fine-tuning."""
