"""One module per inference runtime: how it is had, its command line, its probes. Pure."""
