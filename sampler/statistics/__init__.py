"""Statistics of categorical and scalar data; NumPy and SciPy alone, knows no engine and no pytest."""
