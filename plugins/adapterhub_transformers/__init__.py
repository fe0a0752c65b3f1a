"""The embedded engine: transformers and PEFT behind the OpenAI API, for every method.

requests.py reads what a client sends, responses.py writes what it gets, worker.py runs the
model in one thread, service.py knows what is served, api.py has the routes, engine.py starts
and stops it all.
"""
