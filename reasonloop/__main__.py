import os
import sys

if not sys.flags.safe_path and sys.path[-1] == os.getcwd():
    sys.path.pop()  # `reasonloop` has put it there: a recipe that names code of the current folder brings it back

from reasonloop.cli import main

sys.exit(main())
