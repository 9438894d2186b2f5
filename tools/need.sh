#!/bin/sh
# Installs Debian packages when a command that needs them fails, or says how to.
#   tools/need.sh PACKAGE... -- COMMAND [ARGUMENT...]
set -eu

packages=
while [ "$1" != "--" ]; do
    packages="$packages $1"
    shift
done
shift

"$@" >/dev/null 2>&1 && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "\"$*\" does not work here. On Debian: sudo apt-get install$packages" >&2
    exit 1
fi
echo "installing$packages" >&2
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086  # a list of words
apt-get install --yes --quiet --no-install-recommends $packages >/dev/null 2>&1 || {
    apt-get update --quiet >/dev/null
    apt-get install --yes --quiet --no-install-recommends $packages >/dev/null
}
"$@" >/dev/null
