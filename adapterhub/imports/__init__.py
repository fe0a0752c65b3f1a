"""Importing adapters that were made elsewhere: pipeline.py, and what it reads.

source.py takes an adapter's files from a directory, pickles.py reads pickled weights in a process
of its own, base.py finds the base, and claim.py says of a stored version which base it belongs to.
"""
