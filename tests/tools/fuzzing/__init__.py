"""Spoiled files of every format that the commands read: each is refused in one line, or judged, and never more."""
