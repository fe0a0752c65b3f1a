"""New plugins: `adz plugins new`, and examples/adz-plugin-template, from the same templates."""

from adapterhub.scaffold.kinds import KINDS
from adapterhub.scaffold.render import Part, parse_part, render
from adapterhub.scaffold.write import write

__all__ = ["KINDS", "Part", "parse_part", "render", "write"]
