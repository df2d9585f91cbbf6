"""Folders of weights as people have them: small ones in every layout that was seen, and files that are none."""
