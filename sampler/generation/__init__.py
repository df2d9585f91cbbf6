"""Generation: requests to token sequences, in blocks of slots over the T3 core."""
