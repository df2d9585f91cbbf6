"""Looking into one run: what the model attended to while it drew each token."""
