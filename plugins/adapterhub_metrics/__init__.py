"""Scores of an answer, one short file each."""
