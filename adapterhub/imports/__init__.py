"""Importing adapters that were made elsewhere: pipeline.py, and what it reads."""
