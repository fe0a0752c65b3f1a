"""Merge rules and the spaces in which they run: one rule or space, one file."""
