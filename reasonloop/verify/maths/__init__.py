"""Final answers in mathematics: read as people and models write them, and compared by value, in bounded time."""
