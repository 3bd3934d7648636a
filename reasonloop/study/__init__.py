"""`reasonloop study`: arms x seeds, each an ordinary run, and their comparison. Free of torch."""

from reasonloop.study.archive import arguments_of, unpack
from reasonloop.study.definition import Study, load_study

__all__ = ["Study", "arguments_of", "load_study", "unpack"]
