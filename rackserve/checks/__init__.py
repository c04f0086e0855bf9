"""What has to be true on a host, as testinfra checks. Shared by `rackserve verify` and the tests."""
