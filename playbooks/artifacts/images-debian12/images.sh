#!/bin/sh
# Makes images.tar, the images that a cluster without a registry starts from: a docker archive of three images
# (https://github.com/moby/docker-image-spec), each a layer or three on nothing.
#   images.sh RECIPE_FOLDER KUBECTL PAUSE OUTPUT_FOLDER
set -eu
recipe=$1 kubectl=$2 pause=$3 out=$4
arch=$(dpkg --print-architecture)
work=$(mktemp -d)
archive=$work/archive
mkdir "$archive"

# The same files give the same bytes, so the same image.
pack() { (cd "$1"; tar --sort=name --numeric-owner --owner=0 --group=0 --mtime=@1700000000 -cf "$2" -- *); }
layer() { pack "$work/$1" "$archive/$1.tar"; }
digest() { sha256sum "$1" | cut -d' ' -f1; }

# image NAME WHAT-IT-RUNS LAYER...
image() {
  name=$1 runs=$2; shift 2
  ids='' files=''
  for each in "$@"; do
    ids="$ids${ids:+,}\"sha256:$(digest "$archive/$each.tar")\""
    files="$files${files:+,}\"$each.tar\""
  done
  config='{"Env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/",'$runs'}'
  printf '{"architecture":"%s","os":"linux","created":"2023-11-14T22:13:20Z","config":%s,"rootfs":{"type":"layers","diff_ids":[%s]}}' \
    "$arch" "$config" "$ids" > "$work/config"
  id=$(digest "$work/config")
  mv "$work/config" "$archive/$id.json"
  printf '%s{"Config":"%s.json","RepoTags":["deepops.local/%s:1"],"Layers":[%s]}' \
    "$comma" "$id" "$name" "$files" >> "$work/manifest"
  comma=,
}
comma=''

mkdir "$work/pause"
cp "$pause" "$work/pause/pause"
layer pause

base=$work/busybox
for folder in bin sbin usr/bin usr/sbin dev etc proc root run sys var/tmp var/log tmp; do mkdir -p "$base/$folder"; done
chmod 1777 "$base/tmp" "$base/var/tmp"
cp /bin/busybox "$base/bin/busybox"
busybox --list | while read -r applet; do
  [ "$applet" = busybox ] || ln -s busybox "$base/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > "$base/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' > "$base/etc/group"
printf 'hosts: files dns\n' > "$base/etc/nsswitch.conf"
ln -s /run "$base/var/run"
layer busybox

mkdir -p "$work/kubectl/usr/bin"
cp "$kubectl" "$work/kubectl/usr/bin/kubectl"
layer kubectl

dns=$work/dns
mkdir -p "$dns/usr/sbin" "$dns/etc/cluster-dns"
cp /usr/sbin/dnsmasq "$dns/usr/sbin/"
ldd /usr/sbin/dnsmasq | awk '$2 == "=>" { print $3 } $1 ~ "^/" { print $1 }' | while read -r library; do
  mkdir -p "$dns${library%/*}"
  cp -L "$library" "$dns$library"
done
cp "$recipe/names.tmpl" "$recipe/names.awk" "$dns/etc/cluster-dns/"
install -m 0755 "$recipe/cluster-dns.sh" "$dns/usr/sbin/cluster-dns"
layer dns

image pause '"Entrypoint":["/pause"]' pause
image busybox '"Cmd":["sh"]' busybox
image cluster-dns '"Entrypoint":["/usr/sbin/cluster-dns"]' busybox kubectl dns
printf '[%s]\n' "$(cat "$work/manifest")" > "$archive/manifest.json"
pack "$archive" "$out/images.tar"
rm -rf "$work"
