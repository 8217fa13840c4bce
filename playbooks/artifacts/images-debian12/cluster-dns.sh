#!/bin/sh
# The cluster's name server: dnsmasq answers from a hosts file, and this script keeps the file as the API has it.
# Answers A and PTR records of Services and of the pods behind headless ones; no SRV records and no ExternalName.
#   DOMAIN      the cluster's domain; default cluster.local
#   PORT        where dnsmasq listens; default 53
#   UPSTREAM    who is asked for all other names: addresses with commas, or "auto" for the first name server of
#               /etc/resolv.conf. Not set: every other name does not exist, and nothing leaves the cluster.
#   KUBECONFIG  instead of the service account of the pod
# The account needs list and watch on services and endpoints of all namespaces.
# /run/ready is there from the first complete list on: for a readiness probe.
set -u
domain=${DOMAIN:-cluster.local}
hosts=/run/cluster-dns/hosts
say() { echo "cluster-dns: $*" >&2; }

dnsmasq_start() {
  set -- --keep-in-foreground --user=root --pid-file --log-facility=- --port="${PORT:-53}" --conf-file=/dev/null \
    --no-resolv --no-hosts --addn-hosts="$hosts" --local="/$domain/" --local-ttl=2 --max-ttl=5 --no-negcache \
    --dns-forward-max=500
  upstream=${UPSTREAM:-}
  if [ "$upstream" = auto ]; then
    upstream=$(awk '$1 == "nameserver" { print $2; exit }' /etc/resolv.conf)
  fi
  for server in $(echo "$upstream" | tr , ' '); do set -- "$@" --server="$server"; done
  # Without an upstream dnsmasq would refuse other names, and a resolver then tries again for seconds.
  [ -n "$upstream" ] || set -- "$@" --address=/#/
  dnsmasq "$@" &
  dnsmasq=$!
}

# One line for every change. A watch ends when the API server says so; the next one begins with a list, so that nothing
# in between is missed.
changes_of() {
  while :; do
    kubectl get "$1" --all-namespaces --watch --output=name || sleep 1
    sleep 1
  done
}

write_hosts() {
  # Not --request-timeout: with it kubectl no longer takes the pod's service account.
  timeout 20 kubectl get services,endpoints --all-namespaces \
    --output=go-template-file=/etc/cluster-dns/names.tmpl > "$hosts.lines" || return 1
  awk -v domain="$domain" -f /etc/cluster-dns/names.awk "$hosts.lines" > "$hosts.new" || return 1
  cmp -s "$hosts.new" "$hosts" && return 0
  mv "$hosts.new" "$hosts"
  kill -HUP "$dnsmasq"
  say "$(wc -l < "$hosts") names"
}

stop() { trap - TERM INT EXIT; kill "$dnsmasq" $watchers 2>/dev/null; exit "$1"; }

mkdir -p "${hosts%/*}"
rm -f /run/ready "$hosts.changes"
: > "$hosts"
dnsmasq_start
mkfifo "$hosts.changes"
exec 3<> "$hosts.changes"
changes_of services >&3 & watchers=$!
changes_of endpoints >&3 & watchers="$watchers $!"
trap 'stop 0' TERM INT
trap 'stop 1' EXIT
while kill -0 "$dnsmasq" 2>/dev/null; do
  if write_hosts; then
    # The API's own Service is always among them, so nothing at all is an API that has only begun.
    [ ! -s "$hosts" ] || touch /run/ready
    # Waits for a change, then for the end of its burst; once a minute it lists without one, should a watch have gone deaf.
    waited=0
    until read -r -t 2 _ <&3; do
      kill -0 "$dnsmasq" 2>/dev/null || break
      waited=$((waited + 2))
      [ "$waited" -lt 60 ] || break
    done
    more=0
    while [ "$more" -lt 200 ] && read -r -t 0.3 _ <&3; do more=$((more + 1)); done
  else
    say "the API at ${KUBERNETES_SERVICE_HOST:-the kubeconfig} did not answer; names stay as they are"
    sleep 2
  fi
done
say "dnsmasq has ended"
exit 1
