"""Diagnosis: from failed probes to their most likely cause."""
