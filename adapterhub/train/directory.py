"""The directory of a run: its checkpoints, its lock, and what is said when it ends early."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from adapterhub.errors import EXIT_INTERRUPTED, AdzError
from adapterhub.full_disk import is_full_disk
from adapterhub.home import adz_home
from adapterhub.manifest import canonical_json, sha256_of
from adapterhub.train.plan import Plan
from adapterhub.train.trainer import COMPLETE


def run_directory(plans: Sequence[Plan]) -> Path:
    """Where a run, or several in one, keep their checkpoints: equal recipes, base and data
    share it."""
    digests = [plan.digest() for plan in plans]
    whole = digests[0] if len(digests) == 1 else sha256_of(canonical_json(digests))
    short = whole.removeprefix("sha256:")[:12]
    return adz_home() / "runs" / f"{plans[0].name.replace('/', '--')}-{short}"


def last_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    found = {
        int(path.name.removeprefix("checkpoint-")): path
        for path in directory.glob("checkpoint-*")
        # Written last, and only then is the checkpoint whole.
        if path.name.removeprefix("checkpoint-").isdigit() and (path / COMPLETE).is_file()
    }
    return found[max(found)] if found else None


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Refuse a second process in the same run: the two would overwrite each other's files.

    Only what `--resume` can use stays behind.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    path = directory.with_name(f"{directory.name}.lock")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # One that ended between the two calls has deleted the file that was opened.
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                raise BlockingIOError
        except BlockingIOError:
            raise AdzError(
                "another process is in the middle of this very run", "wait for it, or stop it"
            ) from None
        try:
            yield
        finally:
            if last_checkpoint(directory) is None:
                shutil.rmtree(directory, ignore_errors=True)
            path.unlink(missing_ok=True)


@contextmanager
def explained(plan: Plan, directory: Path) -> Iterator[None]:
    """Out of memory, a full disk and an interrupt become one sentence with what to do next."""
    training = plan.recipe.training
    try:
        yield
    except KeyboardInterrupt:
        kept = last_checkpoint(directory)
        step = kept.name.removeprefix("checkpoint-") if kept else None
        hint = f"; --resume goes on from step {step}" if step else "; no checkpoint was written yet"
        raise AdzError(
            f"interrupted: nothing was committed{hint}", exit_code=EXIT_INTERRUPTED
        ) from None
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise AdzError(
            "out of memory",
            f"lower training.batch_size (now {training.batch_size}) and raise "
            "training.accumulation, lower training.max_length, or use --quantizer nf4",
        ) from error
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise AdzError(
            f"no space left on the disk of {directory.parent}",
            "free some, then go on with --resume",
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text
