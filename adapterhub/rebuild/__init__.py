"""Rebuilding: a version is made again from its recorded recipe, and its bytes are compared.

`adapterhub.rebuild.pipeline.rebuild` runs it; nothing is ever committed.
"""
