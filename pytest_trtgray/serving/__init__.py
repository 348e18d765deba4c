"""Inside a serving process: a few requests are profiled, and judged by the same gate as in a test."""
