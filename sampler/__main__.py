"""`python -m sampler` is the `sampler` command."""

from sampler.cli.app import main

main()
