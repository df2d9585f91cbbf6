"""What all runs of a log have in common because of how it was written, not of how its tokens were drawn."""
