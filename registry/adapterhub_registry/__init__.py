"""The local registry."""
