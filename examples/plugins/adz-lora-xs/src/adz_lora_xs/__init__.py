"""The method LoRA-XS for adapterhub."""
