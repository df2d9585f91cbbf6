"""Storage and reports of verdicts: JSON lines, crash files, tables."""
