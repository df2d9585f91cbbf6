"""Checks of whole token runs beside reference runs."""
