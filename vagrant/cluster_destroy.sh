#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/seed.sh"

help_wanted "${1:-}" <<HELP
Usage: ./cluster_destroy.sh

Destroys the cluster that ./vagrant_startup.sh has made: deepops-virtual destroy $NAME
With DEEPOPS_VAGRANT_FILE naming a Vagrantfile of your own this is 'vagrant destroy --force' in its folder.
'virsh -c qemu:///system list --all' shows nothing of it afterwards.

Exit status: 0 it is gone, 1 something is left (the message names it), 2 there is no such cluster.
HELP

if own_vagrantfile; then own_vagrant destroy --force "$@"; fi
virtual destroy "$NAME" "$@"
if [[ -L $HERE/.vagrant ]]; then rm "$HERE/.vagrant"; fi
