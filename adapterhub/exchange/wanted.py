"""Which versions a command means, here or at a remote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adapterhub.errors import AdzError, unknown_name, usage_error
from adapterhub.manifest import Version
from adapterhub.protocols import Registry, Remote
from adapterhub.reference import LATEST, Reference, check_alias, parse_reference


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A version of this registry, and the aliases to set at the remote."""

    version: Version
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Incoming:
    """A number or an alias of a name at a remote."""

    name: str
    tag: str

    @property
    def alias(self) -> str | None:
        """The alias to set here too, if it is one."""
        return None if self.tag.isdigit() else self.tag


def outgoing(registry: Registry, references: Sequence[str], *, every: bool) -> list[Outgoing]:
    """What to push: `name@alias` sets the alias too; with `every` all versions and aliases of
    names. A version that is meant twice is there once, with all of its aliases."""
    found: dict[str, Outgoing] = {}
    for text in references:
        reference = parse_reference(text)
        if every:
            _refuse_selector(text)
            versions = registry.versions(reference.name)
            items = [Outgoing(version, version.aliases) for version in versions]
        else:
            is_alias = reference.kind == "alias" and reference.selector != LATEST
            items = [Outgoing(registry.resolve(text), (reference.selector,) if is_alias else ())]
        for item in items:
            before = found.get(item.version.digest)
            aliases = tuple(dict.fromkeys((before.aliases if before else ()) + item.aliases))
            found[item.version.digest] = Outgoing(item.version, aliases)
    return list(found.values())


def incoming(remote: Remote, references: Sequence[str], *, every: bool) -> Iterator[Incoming]:
    """What to pull: a name means its highest number there, or with `every` all numbers and
    then all aliases. Raises a usage error for what is not there, with the nearest names."""
    for text in references:
        reference = parse_reference(text)
        if every:
            _refuse_selector(text)
        if reference.kind == "digest":
            raise usage_error(
                f"{text}: a remote knows numbers and aliases only", f"adz pull {reference.name}@N"
            )
        if not every and reference.selector != LATEST:
            yield Incoming(reference.name, reference.selector)
            continue
        tags = _tags(remote, reference)
        numbers = sorted((tag for tag in tags if tag.isdigit()), key=int)
        if not numbers:
            raise _not_there(remote, reference)
        chosen = [*numbers, *(t for t in tags if not t.isdigit())] if every else numbers[-1:]
        yield from (Incoming(reference.name, tag) for tag in chosen)


def not_there(remote: Remote, item: Incoming) -> AdzError:
    """The error of a version that is not at the remote, with what is there instead."""
    return _not_there(remote, parse_reference(f"{item.name}@{item.tag}"))


def _tags(remote: Remote, reference: Reference) -> list[str]:
    """The numbers and aliases there; other tags, which other tools may set, are left out."""
    return sorted(tag for tag in set(remote.tags(reference.name)) if is_tag(tag))


def is_tag(tag: str) -> bool:
    """Whether a remote's tag is a number or an alias as we write them."""
    if tag.isdigit():
        return tag.isascii() and not tag.startswith("0")
    try:
        check_alias(tag)
    except AdzError:
        return False
    return True


def _not_there(remote: Remote, reference: Reference) -> AdzError:
    tags = _tags(remote, reference)
    if tags:
        known = ", ".join(tags[:12]) + (", ..." if len(tags) > 12 else "")
        return usage_error(f"{remote.url} has no {reference}", f"it has {known}")
    try:
        names = remote.names()
    except AdzError:
        return usage_error(f"{remote.url} has no adapter {reference.name}")
    if not names:
        return usage_error(f"{remote.url} holds no adapter", "is the address right?")
    error = unknown_name("adapter", reference.name, names)
    return usage_error(f"{remote.url}: {error.message}", error.hint)


def _refuse_selector(text: str) -> None:
    if "@" in text:
        raise usage_error(f"--all means every version, so {text} is too much", "give the name")
