"""What people would rather look at: drawn, for the terminal."""
