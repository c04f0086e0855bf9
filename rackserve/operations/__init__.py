"""pyinfra operations: compare what is wanted with what is observed, and yield commands only for the difference.

Each one is coarse, because every command is a round trip and every operation costs at prepare time. None raises while a
deploy runs: an exception would end the run for all hosts, a failing command ends it for one.
"""
