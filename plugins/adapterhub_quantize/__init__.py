"""Quantizers of bitsandbytes: nf4, int8."""
