"""The HTML report of a run: one file that needs no network, or served and kept fresh while the run goes on."""

from reasonloop.report.follow import follow
from reasonloop.report.page import write_report

__all__ = ["follow", "write_report"]
