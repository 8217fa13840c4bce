#!/bin/sh
# Runs in a throw-away root file system: kubectl and pause of the programs in, /out/images.tar out.
set -eu
mkdir -p /out /build
for archive in node pause; do zstd -qdc "/used/kubernetes-debian12/$archive.tar.zst" | tar -x -C /build -f -; done
sh /recipe/images.sh /recipe /build/kubectl /build/pause /out
