#!/bin/sh
# Makes a machine of a box like an installed one, for playbooks that were written for these: a box leaves out, or switched off,
# what an installation has. Run as root before a checkout of DeepOps is applied; what is there already costs nothing.
set -eu

# apt's lists: DeepOps' bootstrap-python.yml fetches them on Ubuntu alone.
if command -v apt-get >/dev/null; then
  set -- /var/lib/apt/lists/*_Packages*
  [ -e "$1" ] || apt-get update -q
fi

# rsyslog's alias is what syslog.socket belongs to; DeepOps' roles restart it and do not enable it.
if [ -e /lib/systemd/system/rsyslog.service ] && [ ! -e /etc/systemd/system/syslog.service ]; then
  systemctl enable -q --now rsyslog
fi
