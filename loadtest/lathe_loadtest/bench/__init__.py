"""`make bench`: what the server costs beside the bare loop, and how it holds when there are too many frames."""
