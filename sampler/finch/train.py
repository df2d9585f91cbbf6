"""`python -m sampler.finch.train --out DIR` rebuilds Finch from scratch."""

import typer

from sampler.finch.training.train import main

if __name__ == "__main__":
    typer.run(main)
