# What the commands of DeepOps Virtual here share. Each is a thin call of `deepops-virtual` on one cluster of a fixed name,
# so that all of them find the same one. Sourced, not run.
# shellcheck shell=bash

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck disable=SC2034
NAME="${DEEPOPS_NAME:-virtual}"
# In a checkout reports lie where all others do, from wherever this is called.
if [[ -x $HERE/../setup.sh ]]; then
  export DEEPOPS_REPORTS="${DEEPOPS_REPORTS:-$(dirname "$HERE")/reports}"
fi

# Prints the text and ends when the first word is a plea for help.
help_wanted() {
  case ${1:-} in -h | --help) cat; exit 0 ;; *) cat > /dev/null ;; esac
}

# Runs deepops-virtual: the one on PATH, else that of this checkout, on a host that is prepared for it first.
virtual() {
  if command -v deepops-virtual > /dev/null; then
    deepops-virtual "$@"
  elif [[ -x $HERE/../setup.sh ]]; then
    "$HERE/../setup.sh" deepops-virtual "$@"
  else
    echo "error: deepops-virtual is not on PATH. Next: pip install deepops-fixtures" >&2
    return 127
  fi
}

# Whether DEEPOPS_VAGRANT_FILE is somebody's own: there, and not in this folder. A cluster that is named counts over it.
own_vagrantfile() {
  [[ -z ${DEEPOPS_CLUSTER:-} && -f ${DEEPOPS_VAGRANT_FILE:-} ]] || return 1
  [[ $(cd "$(dirname "$DEEPOPS_VAGRANT_FILE")" && pwd -P) != $(cd "$HERE" && pwd -P) ]]
}

# Runs Vagrant on somebody's own Vagrantfile, as DeepOps Virtual does: those machines are in no ledger of ours.
own_vagrant() {
  echo "machines of $DEEPOPS_VAGRANT_FILE: vagrant $*" >&2
  cd "$(dirname "$DEEPOPS_VAGRANT_FILE")" || exit 1
  VAGRANT_VAGRANTFILE=$(basename "$DEEPOPS_VAGRANT_FILE") exec vagrant "$@"
}
