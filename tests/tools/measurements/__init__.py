"""Programs behind the measured findings of docs/findings.md; each prints the figures that stand there."""
