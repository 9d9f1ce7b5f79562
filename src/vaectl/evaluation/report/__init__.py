"""The HTML report of an evaluation: one self-contained file. Knows no metric and no model."""

from vaectl.evaluation.report.builder import ReportBuilder

__all__ = ["ReportBuilder"]
