"""The plain install pushes, pulls, imports and signs: nothing of it draws in torch or a backend."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_remotes_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "import adapterhub.cards, adapterhub.imports.hub, adapterhub.signing.signature\n"
        "import adapterhub.exchange.pull, adapterhub.exchange.push\n"
        "import adapterhub_remotes.files, adapterhub_remotes.hub, adapterhub_remotes.objects\n"
        "heavy = {'torch', 'transformers', 'model_signing', 's3fs', 'botocore'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
