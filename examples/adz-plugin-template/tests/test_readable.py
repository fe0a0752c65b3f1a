"""The remote `readable`."""

from __future__ import annotations

from adapterhub.testing import RemoteConformance


class TestReadable(RemoteConformance):
    """What every remote promises."""

    name = "readable"

    def url(self, folder):
        return f"readable://{folder}/share"


def test_a_person_finds_the_manifest(adz, tiny_adapters, tmp_path):
    assert adz("push", "tiny-a", "--to", f"readable://{tmp_path}/share").code == 0
    assert (tmp_path / "share" / "tiny-a" / "tags" / "1" / "manifest.json").is_file()
