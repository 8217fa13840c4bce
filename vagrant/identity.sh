#!/bin/sh
# Runs once on each new node, over its first connection: gives the node its name and its address in the cluster's
# network, and replaces the key every Vagrant box is born with by this cluster's own. One round trip, where Vagrant's
# provisioners take several, each of which costs seconds on an emulated guest.
# Arguments: public key, host name, address, prefix length.
set -eu
printf '%s\n' "$2" > /etc/hostname
hostname "$2"
sed -i "s/^127.0.1.1.*/127.0.1.1 $2/" /etc/hosts
# The interface in the cluster's network: eth1, or by whatever name the one that got no address over DHCP.
interface=eth1
if [ ! -e /sys/class/net/eth1 ]; then
  interface=
  for path in /sys/class/net/*; do
    [ -e "$path/device" ] || continue
    ip -4 -o addr show dev "${path##*/}" scope global | grep -q . || interface=${path##*/}
  done
  [ -n "$interface" ] || { echo "no network interface without an address: which is the cluster's?" >&2; exit 1; }
fi
if [ -d /run/NetworkManager ]; then
  nmcli connection add type ethernet con-name deepops ifname "$interface" connection.autoconnect yes \
    ipv4.method manual ipv4.addresses "$3/$4" ipv6.method disabled
  nmcli connection up deepops
elif command -v networkctl > /dev/null; then
  printf '[Match]\nName=%s\n\n[Network]\nAddress=%s/%s\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n' \
    "$interface" "$3" "$4" > "/etc/systemd/network/05-$interface.network"
  networkctl reload
else
  echo "neither NetworkManager nor systemd-networkd is here to give $interface the address $3/$4" >&2
  exit 1
fi
printf '%s\n' "$1" > /home/vagrant/.ssh/authorized_keys
# The checks work as root: over sudo each of their commands would take half a second more on an emulated guest.
install -d -m 0700 /root/.ssh
printf '%s\n' "$1" > /root/.ssh/authorized_keys
chmod 0600 /root/.ssh/authorized_keys
if command -v restorecon > /dev/null; then restorecon -R /etc/hostname /root/.ssh /home/vagrant/.ssh; fi
