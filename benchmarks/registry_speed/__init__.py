"""The parts of benchmarks/registry.py: a registry of many versions, its times, and the peers'."""
