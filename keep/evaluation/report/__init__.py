"""What ``keep.test`` leaves behind: records of clips, tables, pictures, and the page."""
