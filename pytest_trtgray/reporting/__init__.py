"""Rendering of what the checks found; decides nothing by itself."""
