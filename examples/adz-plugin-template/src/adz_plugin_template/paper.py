"""A data format: papers, of which the abstract is learnt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.protocols import Example


class Paper:
    """`{"title": "...", "keywords": ["...", ...], "abstract": "..."}`"""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether it has these three columns."""
        return {"title", "keywords", "abstract"} <= row.keys()

    def example(self, row: Mapping[str, Any]) -> Example:
        """Title and keywords are the prompt; raises ValueError for what is no such row."""
        for column in ("title", "abstract"):
            if not isinstance(row.get(column), str) or not row[column]:
                raise ValueError(f"the column {column!r} holds no text")
        keywords = row.get("keywords")
        if not isinstance(keywords, list) or not all(isinstance(k, str) for k in keywords):
            raise ValueError("the column 'keywords' is no list of texts")
        prompt = f"{row['title']}\nKeywords: {', '.join(keywords)}\nAbstract:"
        return Example(prompt=prompt, completion=f" {row['abstract']}")
