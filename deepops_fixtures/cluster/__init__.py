"""Nodes and their life: topology, ledger, ssh, boxes, providers, teardown."""
