"""Build, load and run engines: one protocol, several runtimes. Knows no test, no baseline, no report."""
