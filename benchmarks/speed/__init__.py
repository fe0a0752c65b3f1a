"""The parts of benchmarks/merge.py: synthetic adapters, one side in a process, peers, plots."""
