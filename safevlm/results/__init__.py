"""What a scan leaves behind: the schema of its rows, and the part files that hold them."""
