"""The built-in tests that run where the user has none."""
