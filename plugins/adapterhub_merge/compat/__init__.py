"""The rules as peers compute them, for `--compat`: to compare with, and to leave a peer slowly.

Written from what the peers do, not from their code. They look at whole modules at once, so
memory is n updates of one module, as theirs is.
"""
