"""Comparisons that are published: how they are made, and what they are made from."""
