"""How the tables came to be, step by step; run by :mod:`pytest_trtgray.history.migrating`."""
