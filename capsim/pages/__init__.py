"""The web app: a file a page, and what they share in ``parts``. Shells over the Python API, without arithmetic."""
