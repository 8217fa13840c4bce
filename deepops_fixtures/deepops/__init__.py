"""A checkout of DeepOps: what it is, which playbooks and roles it has, how it is driven."""
