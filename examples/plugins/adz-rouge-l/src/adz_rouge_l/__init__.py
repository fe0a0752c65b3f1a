"""The metric ROUGE-L for adapterhub."""
