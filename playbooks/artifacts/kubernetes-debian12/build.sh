#!/bin/sh
# Runs in a throw-away root file system: Debian's source package of Kubernetes in, /out with the programs out.
set -eu
out=/out build=/build
export HOME=/root DEBIAN_FRONTEND=noninteractive
mkdir -p "$out" "$build"
cd "$build"

if ! apt-get source --download-only "kubernetes=$SOURCE_VERSION"; then
  echo "The archive does not have Kubernetes' source package in version '$SOURCE_VERSION'. It has:"
  apt-cache showsrc --only-source kubernetes | sed -n 's/^Version: /  /p'
  echo "Put one of these into the recipe as source_version, kube_version to match."
  exit 1
fi
dpkg-source --no-check -x ./*.dsc src
cd src

# The vendored reflect2 reads Go's private structures and crashes with Go 1.18 and later; Debian's copy of it does not.
for module in modern-go/reflect2 json-iterator/go; do
  rm -rf "vendor/github.com/$module"
  cp -r "/usr/share/gocode/src/github.com/$module" "vendor/github.com/$module"
done

# There is no git checkout that Kubernetes' scripts could ask for these.
KUBE_GIT_COMMIT=$(printf '%s' "$SOURCE_VERSION" | sha1sum | cut -c1-40)
export KUBE_GIT_COMMIT KUBE_GIT_VERSION="$KUBE_VERSION" KUBE_GIT_TREE_STATE=clean GOFLAGS=-buildvcs=false
programs="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl"
# shellcheck disable=SC2086 # one word a program is meant
make WHAT="$(printf 'cmd/%s ' $programs)"

mkdir "$build/bin"
for program in $programs; do
  # -s -w left no symbols in most of them.
  strip -o "$build/bin/$program" "_output/bin/$program"
done
gcc -Os -Wall -static -s -DVERSION=1 -o "$build/bin/pause" build/pause/linux/pause.c
cd "$build"
# The build tree and Go's cache are 3 GB that nobody needs any more.
chmod -R u+w src "$HOME/.cache" 2>/dev/null || true
rm -rf src "$HOME/.cache"

pack() {
  name=$1; shift
  tar -C "$build/bin" --sort=name --numeric-owner --owner=0 --group=0 --mtime=@1700000000 -cf - -- "$@" \
    | zstd -q -12 -T2 -o "$out/$name.tar.zst"
}
pack control-plane kube-apiserver kube-controller-manager kube-scheduler
pack node kubelet kube-proxy kubectl
pack pause pause
# A program that does not start is found here rather than on a node.
for program in $programs; do "$build/bin/$program" --version >/dev/null 2>&1 || "$build/bin/$program" version --client; done
