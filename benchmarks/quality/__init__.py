"""The parts of merge_quality.py: adapters, scores, merges, the search, and the report."""
