"""Where adapterhub keeps everything that it writes."""

from __future__ import annotations

import os
from pathlib import Path


def adz_home() -> Path:
    """`$ADZ_HOME`, or the platform's folder for user data. Not created here."""
    given = os.environ.get("ADZ_HOME")
    if given:
        return Path(given).expanduser().absolute()
    # Imported late: most commands run with ADZ_HOME or do not need the platform default.
    import platformdirs

    return Path(platformdirs.user_data_dir("adapterhub", appauthor=False))
