"""Everything that drives pyinfra from outside, as the program it is."""
