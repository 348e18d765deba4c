"""Examples of what surrounds the tests."""
