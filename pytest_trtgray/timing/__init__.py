"""Is it still fast? Measuring in sessions, and a verdict that knows when it does not know."""
