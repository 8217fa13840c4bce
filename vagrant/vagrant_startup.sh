#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/seed.sh"

help_wanted "${1:-}" <<HELP
Usage: ./vagrant_startup.sh [OPTION...]

Boots the virtual machines of a DeepOps cluster and leaves them running: deepops-virtual up --name $NAME OPTION...
They are Ubuntu's unless one of these says otherwise:
  DEEPOPS_VAGRANT_FILE   ./Vagrantfile-ubuntu, ./Vagrantfile-centos, ./Vagrantfile-debian; for a Vagrantfile of your own
                         this is 'vagrant up' in its folder
  DEEPOPS_VAGRANT_OS, DEEPOPS_OS_VERSION, DEEPOPS_FULL_INSTALL, DEEPOPS_LARGE_SLURM   as in DeepOps
  DEEPOPS_CLUSTER        a cluster's name or file (deepops-virtual clusters)
Then: vagrant ssh virtual-gpu01 in this folder, ./cluster_up.sh, ./cluster_destroy.sh

Exit status: 0 they are up, 1 they did not come up (nothing is left), 2 refused (nothing was created).
HELP

if own_vagrantfile; then own_vagrant up --provider=libvirt "$@"; fi
if [[ -z ${DEEPOPS_CLUSTER:-} ]]; then export DEEPOPS_VAGRANT_OS="${DEEPOPS_VAGRANT_OS:-ubuntu}"; fi
virtual up --name "$NAME" "$@"

# 'vagrant ssh' in this folder looks for its machines in .vagrant.
variables=$(virtual env "$NAME")
eval "$variables"
link=$HERE/.vagrant
if [[ -d $link && ! -L $link && -z $(find "$link" -name id) ]]; then
  rm -rf "$link" # Vagrant made it, and knows no machine in it
fi
if [[ -e $link && ! -L $link ]] || ! ln -sfn "$VAGRANT_DOTFILE_PATH" "$link" 2> /dev/null; then
  echo "'$link' cannot be made a link to the cluster; instead of 'vagrant ssh NODE':" \
    "deepops-virtual ssh $NAME NODE" >&2
fi
