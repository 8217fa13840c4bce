#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/seed.sh"

help_wanted "${1:-}" <<HELP
Usage: ./cluster_up.sh [OPTION...]

Applies DeepOps to the machines that ./vagrant_startup.sh has booted: deepops-virtual deploy $NAME OPTION...
  DEEPOPS_ENABLE_SLURM, DEEPOPS_DISABLE_K8S   choose the parts, as in DeepOps
  DEEPOPS_SOURCE                              what is applied (deepops-virtual deploy --help)
Then: deepops-virtual test $NAME

Exit status: 0 it is applied, 1 a playbook failed, 2 refused (nothing was changed).
HELP

if own_vagrantfile; then
  echo "error: the machines of '$DEEPOPS_VAGRANT_FILE' are yours, and nothing is deployed to them from here. Next: apply" \
    "DeepOps yourself, then pytest --deepops-vagrant-file $DEEPOPS_VAGRANT_FILE" >&2
  exit 2
fi
virtual deploy "$NAME" "$@"
