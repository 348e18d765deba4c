"""What the runtimes say while they build, load and run: captured, structured, diagnosed."""
