"""`python -m sampler` is the `sampler` command."""

from sampler.cli import main

main()
