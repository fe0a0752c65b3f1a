"""The verbs of `adz` in Python: `from adapterhub import Hub`.

Every method calls the pipeline that the command of the same name calls. References are the
same strings; mistakes raise `AdzError`.
"""

from __future__ import annotations

from adapterhub.hub.exchanging import Exchanging
from adapterhub.hub.keeping import Keeping
from adapterhub.hub.making import Making


class Hub(Making, Keeping, Exchanging):
    """One home with its bases and adapters. `home` is `$ADZ_HOME` where it is not given."""
