"""The command line: click, thin."""
