"""What a machine has, what of it does not go together, and the way out. Nothing is loaded into this process."""
