#!/usr/bin/env bash
# Builds Apache Mesos 1.11.0 for Debian 12 (x86-64) into DIR/bin and DIR/lib: mesos-master, mesos-agent,
# mesos-containerizer and mesos-fetcher. See README.md beside this file.
#
# Usage: build.sh DIR      (PYTHON=... chooses the interpreter that downloads; default python3)
# To build: python3 with venv, g++, binutils. To run: libsvn1 libapr1 libsasl2-2 libsasl2-modules zlib1g libstdc++6.
# Building again takes no time unless a file beside this one has changed.
set -euo pipefail

version=1.11.0
sha256=1d376f20bca6d05ee8b90c1c123a452b28753497ccc2f1c80ea3ac94c12e8f6e

say() { echo "build.sh: $*" >&2; }
[[ $# == 1 && $1 != -* ]] || { say "usage: build.sh DIR"; exit 2; }
[[ $(uname -sm) == "Linux x86_64" ]] ||
  { say "Mesos is packaged for Linux on x86-64 only, this is $(uname -sm)"; exit 2; }
for tool in "${PYTHON:=python3}" g++ nm strip flock sha256sum; do
  command -v "$tool" > /dev/null || { say "$tool is missing: apt-get install python3-venv g++ binutils"; exit 2; }
done
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)

exec 9> "$dir/.lock"
flock 9
stamp=$(cd "$here" && sha256sum build.sh download.py stubs.py requirements.txt mesos-fetcher src/* | sha256sum)
if [[ $(cat "$dir/.stamp" 2> /dev/null) == "$stamp" && -x $dir/bin/mesos-agent ]]; then exit 0; fi
rm -f "$dir/.stamp"

work=$dir/build
mkdir -p "$work"
archive=$work/mesos.scheduler-$version.linux-x86_64.tar.gz
intact() { echo "$sha256  $archive" | sha256sum --check --status 2> /dev/null; }
if ! intact; then
  say "downloading Mesos $version (27 MB)"
  "$PYTHON" -m venv --clear "$work/venv" > "$work/venv.log" 2>&1 ||
    { cat "$work/venv.log" >&2; say "no virtual environment: apt-get install python3-venv"; exit 2; }
  "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
  "$work/venv/bin/python" "$here/download.py" "$version" "$archive"
  rm -rf "$work/venv" "$work/venv.log"
  intact || { say "$archive is not the archive that was expected (sha256 differs): remove it and try again"; exit 1; }
fi

say "building into $dir"
new=$work/new
rm -rf "$new"
mkdir -p "$new/bin" "$new/lib"
tar --extract --gzip --file "$archive" --to-stdout --wildcards '*/_scheduler.so' > "$new/lib/libmesos.so"
"$PYTHON" "$here/stubs.py" "$new/lib/libmesos.so" "$work/stubs.c" "$work/stubs.map"
# Without its local symbols and debug information it is half as large; what we link against stays.
strip --strip-unneeded "$new/lib/libmesos.so"
g++ -x c -shared -fPIC -w -fno-builtin -o "$new/lib/libmesos-stubs.so" "$work/stubs.c" \
  -Wl,--version-script="$work/stubs.map" -Wl,-soname,libmesos-stubs.so
# The loader looks the old libraries up by their names and finds that it has the file already.
for old in libssl.so.1.0.0 libcrypto.so.1.0.0 libcurl.so.4; do ln -s libmesos-stubs.so "$new/lib/$old"; done

flags=(-std=c++17 -O1 -Wall -Wextra)
g++ "${flags[@]}" -c "$here/src/program.cpp" -o "$work/program.o"
for program in master agent containerizer; do
  # RPATH rather than RUNPATH, so that it holds for what libmesos.so needs, too.
  g++ "${flags[@]}" "$here/src/$program.cpp" "$work/program.o" -o "$new/bin/mesos-$program" \
    -L"$new/lib" -lmesos -lmesos-stubs \
    -Wl,-rpath,'$ORIGIN/../lib' -Wl,--disable-new-dtags -Wl,-z,lazy -Wl,--allow-shlib-undefined
done
install -m 755 "$here/mesos-fetcher" "$new/bin/mesos-fetcher"
"$new/bin/mesos-master" --version > /dev/null || { say "what was built does not run"; exit 1; }

rm -rf "$dir/bin" "$dir/lib"
mv "$new/bin" "$new/lib" "$dir/"
rm -rf "$new" "$work"/stubs.* "$work"/*.o
echo "$stamp" > "$dir/.stamp"
say "built $("$dir/bin/mesos-master" --version)"
