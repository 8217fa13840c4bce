"""Checks of what every node runs: services, names, clocks, trust, shared folders, logs."""
