"""The results of several candidates, measured on the same clips under one protocol: plain values. No tensors here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vaectl.evaluation.results import Evaluation


@dataclass(frozen=True)
class Comparison:
    """Everything that `vaectl eval` reports about one candidate or several."""

    evaluations: tuple[Evaluation, ...]
    """One for each candidate, in the given order, with the same clips and metrics."""

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values: of one candidate, its evaluation; of several, all of them."""
        evaluations = [evaluation.as_json() for evaluation in self.evaluations]
        return evaluations[0] if len(evaluations) == 1 else {"candidates": evaluations}
