"""Tools that measure the checks and the tests themselves; their pages are in docs/evidence/."""
