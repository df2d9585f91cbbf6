"""The duel: scoring and its rivals put to the same tokens, docs/evidence/duel.md (`tox -e duel`)."""
