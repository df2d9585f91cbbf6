"""What becomes of verdicts: JSON lines, crash files, tables."""
