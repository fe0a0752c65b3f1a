"""10 components for adapterhub."""
