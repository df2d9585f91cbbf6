"""Whether the error rates that the statistical checks state are true: `python -m tests.tools.calibration`."""
