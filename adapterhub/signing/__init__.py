"""Signatures of versions, made and checked with model-signing: signature.py."""
