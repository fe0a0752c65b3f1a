"""The merge rule STAR for adapterhub."""
