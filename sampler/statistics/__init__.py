"""Statistics of categorical and scalar data; needs only NumPy and SciPy, no engine and no pytest."""
