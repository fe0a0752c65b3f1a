"""A server from its start to its end.

process.py names a process so that no other is ever signalled, state.py keeps the file in which
each server says how it is, log.py bounds its log, detach.py starts one in the background,
supervise.py starts an engine again that died, signals.py is how SIGTERM and Ctrl-C arrive, ask.py
asks a server of this machine, stop.py ends one.
"""
