"""Baselines: which one is meant, and files that are whole or absent."""
