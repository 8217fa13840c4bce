#!/usr/bin/env bash
# Prepares this host, as DeepOps Virtual's setup.sh does: it is the project's own, ../setup.sh --help.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../setup.sh" "$@"
