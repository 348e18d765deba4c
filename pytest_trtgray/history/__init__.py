"""Every run in a database: who was when how fast, and since which commit no longer."""
