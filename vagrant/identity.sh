#!/bin/sh
# Runs once on each new node, over its first connection: gives the node its name and its address in the cluster's
# network, and replaces the key every Vagrant box is born with by this cluster's own. One round trip, where Vagrant's
# provisioners take several, each of which costs seconds on an emulated guest.
# Arguments: public key, host name, address, prefix length.
set -eu
printf '%s\n' "$2" > /etc/hostname
hostname "$2"
sed -i "s/^127.0.1.1.*/127.0.1.1 $2/" /etc/hosts
printf '[Match]\nName=eth1\n\n[Network]\nAddress=%s/%s\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n' "$3" "$4" \
  > /etc/systemd/network/20-eth1.network
networkctl reload
printf '%s\n' "$1" > /home/vagrant/.ssh/authorized_keys
# The checks work as root: over sudo each of their commands would take half a second more on an emulated guest.
install -d -m 0700 /root/.ssh
printf '%s\n' "$1" > /root/.ssh/authorized_keys
chmod 0600 /root/.ssh/authorized_keys
