"""The chain from the logits processors of `transformers`."""
