#!/usr/bin/env bash
# Prepares this machine for DeepOps Virtual, then runs the command it is given inside the prepared environment.
# It is idempotent: what is already there is left alone, and a second call costs less than two seconds.
set -euo pipefail

readonly ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly VENV="${DEEPOPS_VENV:-$ROOT/.venv}"
readonly LOG_DIR="${XDG_CACHE_HOME:-$HOME/.cache}/deepops-fixtures"
readonly LOG="$LOG_DIR/setup.log"
readonly LIBVIRT_CONF=/etc/deepops-fixtures/libvirtd.conf
readonly LEASES=/run/lock/deepops-fixtures
readonly OS_RELEASE="${DEEPOPS_OS_RELEASE:-/etc/os-release}"

readonly APT_PACKAGES=(
  qemu-system-x86 qemu-utils ovmf libvirt-daemon libvirt-daemon-system libvirt-clients dnsmasq-base iptables
  vagrant vagrant-libvirt mmdebstrap uidmap debian-archive-keyring fakeroot e2fsprogs fdisk grub-pc-bin tini
  openssh-client rsync gcc pkg-config libvirt-dev python3-dev python3-venv
)
readonly DNF_PACKAGES=(
  qemu-kvm qemu-img edk2-ovmf libvirt-daemon-kvm libvirt-client dnsmasq iptables-nft
  vagrant openssh-clients rsync gcc gcc-c++ make pkgconf-pkg-config libvirt-devel python3.11 python3.11-devel
  e2fsprogs util-linux procps-ng
)

usage() {
  cat <<'HELP'
Usage: ./setup.sh [--check | --help] [COMMAND [ARG...]]

Prepares this host for DeepOps Virtual and then runs COMMAND inside the prepared environment:
  1. packages    QEMU, libvirt, Vagrant, vagrant-libvirt, image-building tools (apt or dnf, with sudo when needed)
  2. libvirt     started by systemd, or by this script where systemd is not process 1
  3. groups      this user joins 'libvirt' and 'kvm'; COMMAND runs with them at once, without a new login
  4. Python      a virtual environment in .venv with this package in it (DEEPOPS_VENV chooses another place)

Options:
  --check   say what is missing and change nothing; exit 0 when all is there, 1 when not
  --help    this text

Examples:
  ./setup.sh                                                          prepare only
  ./setup.sh pytest -m "slurm or services" --deepops-cluster debian   the main job
  ./setup.sh pytest tests/harness -n 2                                the project's own tests
  ./setup.sh deepops-virtual status                                   any other command

Exit status: COMMAND's own; without COMMAND 0 ready, 1 a step failed, 2 this system is not supported.
HELP
}

say() { printf '[setup] %s\n' "$*" >&2; }

die() {
  local status=$1
  shift
  printf '[setup] error: %s\n' "$*" >&2
  exit "$status"
}

# Runs a step with its output in the log; shows the end of the log when the step fails.
step() {
  local what=$1 begin=$SECONDS
  shift
  say "$what ..."
  printf '\n== %s: %s\n' "$(date -Is)" "$*" >>"$LOG"
  if ! "$@" >>"$LOG" 2>&1; then
    tail -n 20 "$LOG" >&2
    die 1 "$what failed. The full output is in $LOG. Run ./setup.sh again once it is mended."
  fi
  say "$what: done in $((SECONDS - begin)) s"
}

as_root() {
  if [[ $EUID -eq 0 ]]; then "$@"; else sudo -n "$@" 2>/dev/null || sudo "$@"; fi
}

has_systemd() { [[ -d /run/systemd/system ]]; }

family() {
  local id="" like=""
  if [[ -r $OS_RELEASE ]]; then
    id=$(sed -n 's/^ID=//p' "$OS_RELEASE" | tr -d '"')
    like=$(sed -n 's/^ID_LIKE=//p' "$OS_RELEASE" | tr -d '"')
  fi
  case " $id $like " in
    *" debian "* | *" ubuntu "*) echo apt ;;
    *" rhel "* | *" centos "* | *" rocky "* | *" almalinux "*) echo dnf ;;
    *) echo none ;;
  esac
}

missing_packages() {
  local name
  case $FAMILY in
    apt)
      local -A have=()
      while read -r name status; do
        [[ $status == *installed ]] && have[${name%%:*}]=1
      done < <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${APT_PACKAGES[@]}" 2>/dev/null)
      for name in "${APT_PACKAGES[@]}"; do [[ -n ${have[$name]:-} ]] || echo "$name"; done
      ;;
    dnf)
      for name in "${DNF_PACKAGES[@]}"; do rpm -q --whatprovides "$name" >/dev/null 2>&1 || echo "$name"; done
      vagrant plugin list 2>/dev/null | grep -q '^vagrant-libvirt ' || echo "vagrant-libvirt(plugin)"
      ;;
  esac
}

install_packages() {
  case $FAMILY in
    apt)
      as_root env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 update
      as_root env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install -y --no-install-recommends \
        "${APT_PACKAGES[@]}"
      ;;
    dnf)
      as_root dnf install -y dnf-plugins-core epel-release
      as_root dnf config-manager --set-enabled crb
      rpm -q vagrant >/dev/null 2>&1 ||
        as_root dnf config-manager --add-repo https://rpm.releases.hashicorp.com/RHEL/hashicorp.repo
      as_root dnf install -y "${DNF_PACKAGES[@]}"
      vagrant plugin list | grep -q '^vagrant-libvirt ' || vagrant plugin install vagrant-libvirt
      ;;
  esac
}

# -- Python ---------------------------------------------------------------------------------------------------------

find_python() {
  local candidate
  for candidate in /usr/bin/python3 /usr/bin/python3.1{3,2,1,0} python3; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
}

venv_key() { { cat "$ROOT/pyproject.toml"; echo "$ROOT"; } | sha256sum | cut -d' ' -f1; }

venv_ready() { [[ -x $VENV/bin/pytest && -r $VENV/.deepops-key && $(<"$VENV/.deepops-key") == "$(venv_key)" ]]; }

make_venv() {
  local python
  python=$(find_python)
  [[ -n $python ]] || { echo "No Python 3.10 or newer with venv was found."; return 1; }
  # Two calls at once (two terminals, two CI jobs) must not install into the same place together.
  exec 9>"$LOG_DIR/venv-$(printf %s "$VENV" | sha256sum | cut -c1-12).lock"
  flock 9
  venv_ready && return 0
  [[ -x $VENV/bin/python ]] || "$python" -m venv "$VENV"
  "$VENV/bin/python" -m pip install --quiet --upgrade-strategy only-if-needed -e "$ROOT[dev]" || return 1
  venv_key >"$VENV/.deepops-key"
  exec 9>&-
}

# -- libvirt --------------------------------------------------------------------------------------------------------

libvirt_answers() { as_root_if_needed timeout 20 virsh -q -c qemu:///system uri >/dev/null 2>&1; }

# A user who joined the group a moment ago cannot reach the socket from this shell: ask as root then.
as_root_if_needed() {
  if [[ $EUID -eq 0 ]] || id -nG | grep -qw libvirt; then "$@"; else as_root "$@"; fi
}

start_libvirt() {
  if has_systemd; then
    as_root systemctl enable --now libvirtd.service 2>/dev/null || as_root systemctl enable --now libvirtd.socket
  else
    start_libvirt_without_systemd
  fi
  local deadline=$((SECONDS + 60))
  until libvirt_answers; do
    ((SECONDS < deadline)) || { echo "libvirtd did not answer at qemu:///system within 60 s."; return 1; }
    sleep 0.3
  done
}

# libvirtd forks QEMU probes and forgets them; without a reaping parent each domain start waits on the dead ones for
# 10-30 s. tini is that parent. There is no polkit here either, so the socket's group decides who may connect.
start_libvirt_without_systemd() {
  as_root mkdir -p /run/libvirt /var/log/libvirt "$(dirname "$LIBVIRT_CONF")"
  printf '%s\n' 'unix_sock_group = "libvirt"' 'unix_sock_rw_perms = "0770"' 'auth_unix_rw = "none"' \
    'auth_unix_ro = "none"' | as_root tee "$LIBVIRT_CONF" >/dev/null
  pgrep -x virtlogd >/dev/null || as_root virtlogd -d
  pgrep -x libvirtd >/dev/null ||
    as_root sh -c "setsid tini -s -- libvirtd --config $LIBVIRT_CONF </dev/null >>/var/log/libvirt/libvirtd.out 2>&1 &"
}

# udev would do this. Where libvirtd may open /dev/kvm but QEMU's user may not, libvirt drops its capability cache at
# every call, and each domain start costs 9 s instead of 0.3 s.
kvm_device_wrong() {
  [[ -e /dev/kvm ]] && getent group kvm >/dev/null && [[ $(stat -c '%G %a' /dev/kvm) != "kvm 660" ]] && ! has_systemd
}

mend_kvm_device() { as_root chgrp kvm /dev/kvm && as_root chmod 0660 /dev/kvm; }

# Leases of GPUs are files that every user of this host may write. Debian's /run/lock is open to all, that of Red Hat's
# family to root alone.
lease_folder_missing() { [[ $FAMILY == dnf && ! -d $LEASES ]]; }

make_lease_folder() {
  echo "d $LEASES 1777 root root -" | as_root tee /etc/tmpfiles.d/deepops-fixtures.conf >/dev/null
  as_root install -d -m 1777 "$LEASES"
}

# -- groups ---------------------------------------------------------------------------------------------------------

missing_groups() {
  [[ $EUID -eq 0 ]] && return 0
  local group
  for group in libvirt kvm; do
    getent group "$group" >/dev/null || continue
    getent group "$group" | cut -d: -f4 | tr , '\n' | grep -qx "$USER_NAME" || echo "$group"
  done
}

join_groups() {
  local group
  for group in "$@"; do as_root usermod -aG "$group" "$USER_NAME"; done
}

run_command() {
  export VIRTUAL_ENV="$VENV" PATH="$VENV/bin:$PATH:/usr/sbin:/sbin"
  [[ $EUID -ne 0 ]] || exec "$@"
  # A group may be in the database and not in this login yet: take it for this one command.
  local group command=(env "PATH=$PATH" "$@")
  for group in libvirt kvm; do
    getent group "$group" >/dev/null || continue
    id -nG | tr ' ' '\n' | grep -qx "$group" || command=(sg "$group" -c "$(printf '%q ' exec "${command[@]}")")
  done
  exec "${command[@]}"
}

# -- main -----------------------------------------------------------------------------------------------------------

unsupported() {
  {
    echo "[setup] error: this system ('$(sed -n 's/^PRETTY_NAME=//p' "$OS_RELEASE" 2>/dev/null | tr -d '"')') is not one"
    echo "  of Debian, Ubuntu, Rocky or Alma Linux. Install these by hand, then run COMMAND in a virtual environment:"
    echo "  - QEMU for x86_64 (qemu-system-x86_64, qemu-img) and OVMF"
    echo "  - libvirt 8 or newer with its development files, running, and this user in its 'libvirt' group"
    echo "  - Vagrant 2.2.19 or newer with the vagrant-libvirt plugin 0.7 or newer"
    echo "  - to build the Debian box: mmdebstrap, newuidmap, fakeroot, e2fsprogs, sfdisk, GRUB's i386-pc modules"
    echo "  - Python 3.10 or newer with venv, a C compiler, pkg-config, an OpenSSH client, rsync"
    echo "  - python3 -m venv .venv && .venv/bin/pip install -e '.[dev]'"
  } >&2
  exit 2
}

check() {
  local bad=0 missing
  missing=$(missing_packages | xargs)
  if [[ -n $missing ]]; then say "missing packages: $missing"; bad=1; else say "packages: ok"; fi
  if libvirt_answers; then say "libvirt: ok"; else say "libvirt does not answer at qemu:///system"; bad=1; fi
  if kvm_device_wrong; then say "/dev/kvm is $(stat -c '%U:%G %a' /dev/kvm), not root:kvm 660"; bad=1; fi
  missing=$(missing_groups | xargs)
  if [[ -n $missing ]]; then say "user '$USER_NAME' is not in: $missing"; bad=1; else say "groups: ok"; fi
  if venv_ready; then say "Python environment: ok"; else say "Python environment in $VENV is missing or out of date"; bad=1; fi
  if ((bad)); then say "To put this right, run: ./setup.sh"; fi
  exit "$bad"
}

main() {
  local check_only=0
  while [[ $# -gt 0 ]]; do
    case $1 in
      --help | -h) usage; exit 0 ;;
      --check) check_only=1; shift ;;
      --) shift; break ;;
      -*) usage >&2; die 2 "unknown option '$1'." ;;
      *) break ;;
    esac
  done

  USER_NAME=$(id -un)
  FAMILY=$(family)
  [[ $FAMILY != none ]] || unsupported
  if ((check_only)); then check; fi
  if [[ $EUID -ne 0 ]] && ! command -v sudo >/dev/null && [[ -n $(missing_packages) ]]; then
    die 1 "packages must be installed and this user is not root and has no sudo."
  fi
  mkdir -p "$LOG_DIR"

  local missing
  missing=$(missing_packages | xargs)
  if [[ -n $missing ]]; then step "Installing packages ($missing)" install_packages; fi
  if kvm_device_wrong; then step "Giving /dev/kvm to group kvm" mend_kvm_device; fi
  if ! libvirt_answers; then step "Starting libvirt" start_libvirt; fi
  if lease_folder_missing; then step "Making the folder of GPU leases" make_lease_folder; fi
  missing=$(missing_groups | xargs)
  # shellcheck disable=SC2086
  if [[ -n $missing ]]; then step "Adding $USER_NAME to $missing" join_groups $missing; fi
  if ! venv_ready; then step "Making the Python environment in $VENV" make_venv; fi

  if [[ $# -eq 0 ]]; then
    say "Ready. The main job: ./setup.sh pytest -m \"slurm or services\" --deepops-cluster debian"
    exit 0
  fi
  run_command "$@"
}

main "$@"
