"""What the tests of a plugin need: a tiny base that is made in a second."""

from adapterhub.testing.tiny import write_tiny_base

__all__ = ["write_tiny_base"]
