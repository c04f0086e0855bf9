"""Pure functions from nouns and catalogue to plans. Nothing here opens a file or a connection."""
