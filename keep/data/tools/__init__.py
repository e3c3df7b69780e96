"""The tools of ``keep-data``: each module holds one tool and its ``main``; the list is in ``__main__.py``."""
