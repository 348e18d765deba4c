"""A FastAPI service that watches the engines it serves."""
