"""Does each part compute what its oracle computes? HuggingFace, upstream's own code, float64 from the definition."""
