"""What leaves the registry: an adapter alone, or folded into its base.

directory.py writes the adapter as PEFT reads it, lora_gguf.py as llama.cpp does. merged.py writes
the base with the adapter in it as a Hugging Face directory, gguf.py as one file for llama.cpp:
base.py reads the base tensor by tensor, fold.py adds the adapter, compare.py proves the result,
ollama.py describes it to Ollama.
"""
