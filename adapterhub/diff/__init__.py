"""Two adapters beside each other: sides.py opens them, factors.py reads one, distance.py measures
how far their updates lie apart, facts.py compares what they say, pipeline.py puts it together."""
