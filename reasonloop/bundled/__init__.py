"""The models that come with the package, a folder each, and how they are made (`python -m reasonloop.bundled`)."""
