"""Example tests for pytest-trtgray; see README.md."""
