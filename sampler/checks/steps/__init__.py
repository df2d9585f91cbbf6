"""Checks of the recorded steps of a cell's runs."""
