"""Places for versions: OCI registries, the Hugging Face Hub, and file systems through fsspec."""
