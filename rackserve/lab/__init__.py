"""Throwaway hosts on one machine, for trying and testing everything on real systemd, SSH and apt."""
