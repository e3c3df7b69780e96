"""The results of ``keep.test``: records of clips, tables, pictures, and the page."""
