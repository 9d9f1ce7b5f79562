"""The HTML page of an evaluation: one file to look at, to keep and to send. Knows no metric and no model."""

from vaectl.evaluation.report.builder import ReportBuilder

__all__ = ["ReportBuilder"]
