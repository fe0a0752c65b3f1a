"""Base models: where they come from, what identifies them, and choosing one.

headers.py reads safetensors headers, sources/ turns what a user gave into a directory,
digests.py identifies it, add.py records it, verify.py notices changes, choose.py picks one.
"""
