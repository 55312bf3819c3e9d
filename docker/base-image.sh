#!/usr/bin/env bash
# Makes the base image debian:bookworm-slim with debootstrap where there is none and none can be pulled, as behind a
# closed network. See docs/docker.md.
#
# Usage: base-image.sh     as root, on a Debian with debootstrap
# MIRROR=URL chooses the Debian mirror; by default it is the one that this machine's apt uses. What this machine needs to
# reach its mirrors and package indexes goes into the image: apt sources, apt's proxy, its own certificate authorities.
set -euo pipefail

image=debian:bookworm-slim
suite=bookworm

say() { echo "base-image.sh: $*" >&2; }
stop() { say "$*"; exit 2; }

docker info > /dev/null 2>&1 || stop "no Docker engine answers"
if docker image inspect "$image" > /dev/null 2>&1; then exit 0; fi
if timeout 120 docker pull --quiet "$image" > /dev/null 2>&1; then exit 0; fi

[[ $EUID == 0 ]] || stop "$image cannot be pulled, and debootstrap takes root: sudo $0"
command -v debootstrap > /dev/null || stop "$image cannot be pulled, debootstrap is missing: apt-get install debootstrap"

# "URI release" of what apt uses here, of this suite only
sources=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
  awk -v suite="$suite" '$3 == "main" && ($2 == suite || index($2, suite "-") == 1) { print $1, $2 }' | sort -u)
mirror=${MIRROR:-$(awk -v suite="$suite" '$2 == suite { print $1; exit }' <<< "$sources")}
[[ -n $mirror ]] || stop "apt has no mirror of $suite here: set MIRROR to the URL of one"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
say "$image cannot be pulled; making it with debootstrap from $mirror"
debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" > "$work/log" 2>&1 ||
  { tail -n 20 "$work/log" >&2; stop "debootstrap failed, see above"; }

# As in Docker's own slim image: no documentation, also of packages that come later, and no package lists.
cat > "$root/etc/dpkg/dpkg.cfg.d/slim" << 'END'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
END
find "$root/usr/share/doc" -mindepth 2 ! -name copyright ! -type d -delete
rm -rf "$root"/usr/share/{info,locale,man}/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/*

echo "deb $mirror $suite main" > "$root/etc/apt/sources.list"
[[ -n ${MIRROR:-} || -z $sources ]] || awk '{ print "deb", $1, $2, "main" }' <<< "$sources" > "$root/etc/apt/sources.list"
apt-config dump | { grep -E '^Acquire::(Check-|https?::Proxy)' || true; } > "$root/etc/apt/apt.conf.d/90host"

# The local certificate authorities join the bundle, here and whenever the package ca-certificates is configured again.
# pip's own tools and requests look at the setting `cert` rather than at the system's bundle.
find /usr/local/share/ca-certificates -name '*.crt' -exec cp -t "$root/usr/local/share/ca-certificates" {} + 2> /dev/null || true
chroot "$root" update-ca-certificates > "$work/log" 2>&1 || { cat "$work/log" >&2; stop "update-ca-certificates failed"; }
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > "$root/etc/pip.conf"

tar --directory "$root" --create . | docker import --change 'CMD ["bash"]' - "$image" > /dev/null
say "made $image"
