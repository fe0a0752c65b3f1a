"""Versions that are made because a request asks for them: merges, and conversions to LoRA.

wanted.py says what is wanted and gives it an identity, build.py makes it a version of the
registry, child.py does so in a process of its own, which builder.py starts, builds.py lets
requests wait, served.py is what an engine asks, local.py what `adz run` and `adz eval` ask.
"""
