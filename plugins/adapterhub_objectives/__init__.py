"""Objectives over TRL: sft."""
