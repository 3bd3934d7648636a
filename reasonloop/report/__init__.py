"""The HTML report of a run: one file that needs no network."""

from reasonloop.report.page import write_report

__all__ = ["write_report"]
