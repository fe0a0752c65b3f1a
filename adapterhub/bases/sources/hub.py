"""A base from the Hugging Face Hub, kept in the Hub's own cache."""

from __future__ import annotations

from pathlib import Path

from adapterhub.errors import AdzError, usage_error
from adapterhub.protocols import Progress

# Never code and never pickle: what is not fetched cannot be loaded.
_WANTED = [
    "*.safetensors", "model.safetensors.index.json", "config.json", "generation_config.json",
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    "chat_template.jinja", "chat_template.json",
]  # fmt: skip
# Copies of the same weights in other layouts.
_UNWANTED = ["*/*", "consolidated*.safetensors"]


def download(repository: str, progress: Progress) -> Path:
    """Fetch the newest revision of `repository`, or find it in the cache when offline."""
    from huggingface_hub import constants, errors, snapshot_download

    try:
        with progress.task(f"fetching {repository}", None):
            return Path(
                snapshot_download(repository, allow_patterns=_WANTED, ignore_patterns=_UNWANTED)
            )
    except errors.GatedRepoError as error:
        raise AdzError(
            f"{repository} is gated", "accept its terms and run hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise usage_error(
            f"there is no {repository} on the Hugging Face Hub, and no such path here",
            "check the name; a private one needs hf auth login",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            raise AdzError(
                f"{repository} is not in the cache and HF_HUB_OFFLINE is set",
                "give a directory, a .gguf file or pkg:NAME, or go online",
            ) from error
        raise AdzError(
            f"the Hugging Face Hub cannot be reached for {repository}",
            "check the connection, or give a directory",
        ) from error
    except (errors.HfHubHTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise AdzError(f"{repository} cannot be fetched: {reason}", "try again") from error
