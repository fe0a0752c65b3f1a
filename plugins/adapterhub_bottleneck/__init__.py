"""Bottleneck adapters: small layers with a non-linearity between those of the base."""
