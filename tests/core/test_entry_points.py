"""Our own scan of metadata against importlib.metadata's."""

from __future__ import annotations

from importlib import metadata

import pytest

from adapterhub.entry_points import GROUP, find_entry_points


@pytest.mark.parametrize("group", [GROUP, "console_scripts", "pytest11"])
def test_scan_agrees_with_importlib(group):
    expected = {
        (e.name, e.value.partition("[")[0].strip(), e.dist.name, e.dist.version)
        for e in metadata.entry_points(group=group)
    }
    found = find_entry_points(group)
    assert {(e.name, e.value, e.distribution, e.version) for e in found} == expected
    assert len(found) == len(expected)


def test_requirements_agree_with_importlib():
    found = find_entry_points(GROUP)
    assert found
    for entry in found:
        assert list(entry.requires) == metadata.requires(entry.distribution)


def test_first_on_the_path_wins(tmp_path):
    for folder, version in (("first", "2.0"), ("second", "1.0")):
        # The same project under two spellings of its name.
        name = "my_dist" if folder == "first" else "My.Dist"
        info = tmp_path / folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: my-dist\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("[group]\nname = package.module:attribute\n")
    found = find_entry_points("group", [str(tmp_path / "first"), str(tmp_path / "second")])
    assert [entry.version for entry in found] == ["2.0"]
    assert found[0].value == "package.module:attribute"


def test_comments_other_groups_and_extras_are_left_out(tmp_path):
    info = tmp_path / "thing-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(
        "[other]\na = b\n[group]\n# one\n; two\nname = module:x.y [extra]\n[last]\nc = d\n"
    )
    found = find_entry_points("group", [str(tmp_path)])
    assert [(e.name, e.value) for e in found] == [("name", "module:x.y")]


def test_load_reaches_into_the_module():
    import os.path

    entry = find_entry_points(GROUP)[0]
    assert entry._replace(value="os:path.join").load() is os.path.join
    assert entry._replace(value="os.path").load() is os.path
