"""The PCI devices of this host: reading them, choosing, leasing, binding to vfio-pci, preparing
the host. Not for the GPUs of a node: `deepops_fixtures.checks` looks at those."""
