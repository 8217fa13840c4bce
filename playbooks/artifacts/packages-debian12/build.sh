#!/bin/sh
# Runs in a throw-away root file system: names of packages in, /out/packages.tar out, a flat apt repository of them and of
# all that they depend on. A guest uses it with: deb [trusted=yes] file:/FOLDER ./
set -eu
store=/store
mkdir -p /out "$store/partial"

# Solved as for a system that has nothing, so that the store is complete for a box of any age.
# shellcheck disable=SC2086 # one word a package is meant
apt-get install --download-only --yes --no-install-recommends --option Dir::State::status=/dev/null \
  --option Dir::Cache::archives="$store" --option APT::Sandbox::User=root $DOWNLOAD
rm -rf "$store/partial" "$store/lock"

cd "$store"
# apt reads %3a in a name of the index as a colon.
for file in *%3a*; do
  [ ! -e "$file" ] || mv "$file" "$(printf '%s' "$file" | sed 's/_[0-9]*%3a/_/')"
done
apt-ftparchive packages . > Packages
gzip -9 -n -k Packages
apt-ftparchive release . > /tmp/Release
mv /tmp/Release Release
echo "$(ls -- *.deb | wc -l) packages, $(du -sh . | cut -f1)"
tar --sort=name --numeric-owner --owner=0 --group=0 --mtime=@1700000000 -cf /out/packages.tar -- *
