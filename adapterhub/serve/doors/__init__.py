"""What stands before every engine: keys, routes, limits and fair turns, as one ASGI middleware.

keys.py is the file of keys and keyring.py the keys that open a running server, routes.py lists
what a client may reach, body.py reads a request, rates.py and admission.py count, middleware.py
puts them together; connection.py closes connections of clients that are too slow.
"""
