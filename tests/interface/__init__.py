"""What a user touches: configs, matrices, weights, the command line, and every error message."""
