"""Versions in an OCI registry (Docker's, Harbor, GitHub's, Zot, ...) by its HTTP API.

An adapter is a repository; its version numbers and aliases are tags. The image manifest's config
blob is the version's manifest, so that one digest names both, and its layers are the files.
"""
