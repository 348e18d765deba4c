"""What other tools have written, as run documents; run documents for other tools, and against each other."""
