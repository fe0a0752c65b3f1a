"""One process of `adz train --nproc N`: torchrun or accelerate starts it on the parent's recipe."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import yaml

from adapterhub.cli.output import TerminalProgress
from adapterhub.config import validate
from adapterhub.errors import EXIT_INTERRUPTED, AdzError
from adapterhub.merge.silent import Silent
from adapterhub.plugins import open_registry
from adapterhub.train import scale
from adapterhub.train.new_base import train_base
from adapterhub.train.pipeline import assist, train
from adapterhub.train.plan import make_plan
from adapterhub.train.recipe import TrainRecipe


def main() -> None:
    """Take part in the run; the first process commits it. Arguments: the resolved recipe, whose
    paths count from the working directory, and `--resume`."""
    # The result is printed by the parent; what libraries print is not one.
    os.dup2(2, 1)
    recipe, *flags = sys.argv[1:]
    resume = "--resume" in flags
    try:
        values = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
        registry = open_registry()
        plan = make_plan(validate(TrainRecipe, values), registry)
        if scale.rank():
            assist(plan, Silent(), resume=resume)
        elif plan.makes_base:
            base = train_base(plan, registry, TerminalProgress(), resume=resume)
            scale.report({"reference": base.name})
        else:
            version = train(plan, registry, TerminalProgress(), resume=resume)
            scale.report({"reference": version.reference})
    except AdzError as error:
        scale.report({"error": [error.message, error.hint], "exit_code": error.exit_code})
    except KeyboardInterrupt:
        # Without an interpreter's end, in which other processes would be waited for.
        os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
