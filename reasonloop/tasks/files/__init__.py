"""Problem files: from whatever they are to rows, each with the place where it stands."""

from reasonloop.tasks.files.formats import read_rows
from reasonloop.tasks.files.raw import Fault, RawRow, Row, row_name, shown
from reasonloop.tasks.files.sources import Source, is_source, locate

__all__ = ["Fault", "RawRow", "Row", "Source", "is_source", "locate", "read_rows", "row_name", "shown"]
