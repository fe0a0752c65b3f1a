"""The data format `paper`."""

from __future__ import annotations

from adz_plugin_template.paper import Paper

from adapterhub.testing import FormatConformance

ROW = {"title": "On words", "keywords": ["words", "lists"], "abstract": "We count words."}


class TestPaper(FormatConformance):
    """What every data format promises."""

    name = "paper"
    rows = (ROW, {**ROW, "keywords": []})
    broken = ({**ROW, "title": ""}, {**ROW, "keywords": "words"}, {**ROW, "abstract": None})


def test_the_abstract_is_learnt():
    example = Paper().example(ROW)
    assert example.prompt == "On words\nKeywords: words, lists\nAbstract:"
    assert example.completion == " We count words."
