"""`python -m rackserve`."""

from rackserve.cli.main import main

main()
