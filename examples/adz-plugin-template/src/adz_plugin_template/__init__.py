"""A template for plugins of adapterhub: one of each kind that people write most."""
