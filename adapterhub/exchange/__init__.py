"""Versions between the registry on this machine and a remote: `adz push`, `adz pull`."""
