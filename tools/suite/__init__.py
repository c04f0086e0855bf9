"""How `make test` and `make test-all` run the tests: jobs, lanes, results, shares, caches. See docs/testing.md."""
