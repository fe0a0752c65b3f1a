"""llama.cpp as an engine of adapterhub.

flags.py reads the engine's own options; files.py keeps the base and the adapters as GGUF files;
llama.py is llama.cpp, runner.py the thread that answers with it; service.py says which version
a request means, api.py is the OpenAI API, requests.py what a client may ask for.
"""
