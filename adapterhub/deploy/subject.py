"""What is deployed: a base, the adapters on it, and where a replica takes both from."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from adapterhub.bases.digests import weight_files
from adapterhub.errors import usage_error
from adapterhub.manifest import BaseRecord
from adapterhub.protocols import Registry

PORT = 8000
DATA = "/data"
SECRET_KEYS = ("HF_TOKEN", "ADZ_OCI_USERNAME", "ADZ_OCI_PASSWORD")
"""What a replica may need beside the API key, each optional."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_IMAGE = re.compile(r"[\w][\w.:/@-]{0,254}")
_REFRESH_SECONDS = 60
# Room for what is committed later, beside the base and a second copy while it changes.
_SPARE_GIB = 10


@dataclass(frozen=True, slots=True)
class Subject:
    """name: of the deployment, a DNS label. source: the base's repository on the Hub. remote:
    where the adapters are pulled from. flags: of `adz serve`, beside where it listens. gpus: of
    each replica. gibibytes: of the volume."""

    name: str
    base: str
    source: str
    adapters: tuple[str, ...]
    remote: str
    image: str
    replicas: int = 1
    gpus: int = 0
    gibibytes: int = _SPARE_GIB
    flags: tuple[str, ...] = ()

    @property
    def prepare(self) -> str:
        """The shell lines that fill an empty volume, and change nothing on a filled one."""
        base, source = shlex.quote(self.base), shlex.quote(self.source)
        return (
            f"adz base show {base} > /dev/null 2>&1 || adz base add {base} {source}\n{self.pull}\n"
        )

    @property
    def pull(self) -> str:
        """The shell line that brings all versions and aliases of the adapters."""
        names = " ".join(map(shlex.quote, self.adapters))
        return f"adz pull {names} --all --from {shlex.quote(self.remote)}"

    @property
    def follow(self) -> str:
        """The shell lines that bring what was pushed since, until they are told to end."""
        # The first process of a container ignores SIGTERM unless it says otherwise, and a shell
        # hears it only between two commands.
        loop = f"while sleep {_REFRESH_SECONDS} & wait $!; do {self.pull} || true; done\n"
        return f"trap 'exit 0' TERM\n{loop}"

    @property
    def serve(self) -> list[str]:
        """The server's command."""
        return ["adz", "serve", self.base, "--host", "0.0.0.0", "--port", str(PORT), *self.flags]  # noqa: S104

    @property
    def environment(self) -> dict[str, str]:
        """Everything that is written lies on the volume."""
        return {
            "ADZ_HOME": f"{DATA}/adz",
            "HF_HOME": f"{DATA}/huggingface",
            "HOME": f"{DATA}/home",
        }


def find_subject(
    registry: Registry,
    base: BaseRecord,
    adapters: tuple[str, ...],
    *,
    remote: str | None,
    image: str | None,
    replicas: int,
    gpus: int,
    flags: tuple[str, ...],
) -> Subject:
    """What is to be deployed. Raises a usage error where a replica could not take it from
    anywhere: a base or a remote that is a folder of this machine, or no image."""
    if not image or not _IMAGE.fullmatch(image):
        given = f"{image!r} names no image" if image else "which image should run?"
        raise usage_error(given, "one with adapterhub in it: --image registry/adapterhub:0.1.0")
    if not remote or "://" not in remote or remote.startswith("file:"):
        raise usage_error(
            "a replica pulls its adapters from a remote that it reaches",
            "adz push NAME --all --to oci://host/path, then --remote oci://host/path",
        )
    if not _HUB_ID.fullmatch(base.source):
        raise usage_error(
            f"the base {base.name} came from {base.source}, which a replica cannot reach",
            "add it from the Hub: adz base add NAME ORGANISATION/MODEL",
        )
    if not adapters:
        raise usage_error(f"no adapter of {base.name} can be served yet", "see 'adz ls'")
    sizes = [v.manifest for name in adapters for v in registry.versions(name)]
    held = sum(file.size for manifest in sizes for file in manifest.files.values())
    held += sum(path.stat().st_size for path in weight_files(Path(base.path)))
    return Subject(
        name=_label(base.name),
        base=base.name,
        source=base.source,
        adapters=adapters,
        remote=remote,
        image=image,
        replicas=replicas,
        gpus=gpus,
        gibibytes=2 * held // 2**30 + _SPARE_GIB,
        flags=flags,
    )


def _label(name: str) -> str:
    """A DNS label, as Kubernetes demands it of a Service: at most 63 characters, and room for
    what is put behind it."""
    return re.sub(r"[^a-z0-9]+", "-", f"adz-{name}")[:48].strip("-")
