"""What a user of a metric relies on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

from adapterhub import specs
from adapterhub.testing.conformance.base import Conformance, check_refusal, check_success
from adapterhub.testing.fixtures import Adz

_TEXTS = ("Paris", "the capital is Paris", "", " ", "42", "àé 漢字 🙂", "a\nb\n", "x" * 5000)


class MetricConformance(Conformance):
    """Of a metric: `name = "mine"`. right, wrong: answers to `reference` that it must order."""

    kind: ClassVar[type[specs.Component]] = specs.Metric
    reference: ClassVar[str] = "the capital is Paris"
    right: ClassVar[str] = "the capital is Paris"
    wrong: ClassVar[str] = "blue"

    def test_it_gives_a_number_for_any_text(self) -> None:
        """Models answer anything: an empty text, many lines, any script."""
        metric = self.implementation
        for answer in _TEXTS:
            for reference in _TEXTS:
                score = metric(answer, reference)
                assert isinstance(score, int | float), f"{answer!r}: {score!r} is no number"
                assert math.isfinite(score), f"{answer!r} against {reference!r}: {score}"

    def test_it_is_deterministic(self) -> None:
        """The same answer has the same score."""
        metric = self.implementation
        pairs = [(answer, self.reference) for answer in _TEXTS]
        first = [metric(*pair) for pair in pairs]
        assert [metric(*pair) for pair in pairs] == first, "two calls differ"

    def test_the_better_answer_scores_better(self) -> None:
        """As the descriptor's `higher_is_better` says."""
        metric = self.implementation
        right, wrong = metric(self.right, self.reference), metric(self.wrong, self.reference)
        better = right > wrong if self.component.higher_is_better else right < wrong
        assert better, (
            f"the right answer scores {right}, a wrong one {wrong}, and "
            f"higher_is_better={self.component.higher_is_better}"
        )

    def test_adz_eval_scores_with_it(self, adz: Adz, tiny_base: Any, tmp_path: Path) -> None:
        """`adz eval --metric NAME` runs and names it."""
        rows = [{"prompt": f"{n}", "completion": " a"} for n in range(2)]
        data = tmp_path / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        flags = ("--data", data, "--max-tokens", "2", "--no-attest", "--json")
        scores = json.loads(check_success(adz("eval", "tiny", "--metric", self.name, *flags)))
        assert self.name in json.dumps(scores), "the result does not name the metric"
        check_refusal(adz("eval", "nobody", "--metric", self.name, "--data", data))
