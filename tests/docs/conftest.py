"""The scripts that write the pages can be imported; a Hub and an OCI registry on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from ..remotes.hub.conftest import hub as hub
from ..remotes.oci.conftest import registry_port as registry_port
from ..remotes.oci.conftest import start_registry as start_registry

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
