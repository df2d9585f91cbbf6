"""The chain built from the logits processors of `transformers`."""
