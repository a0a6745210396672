#!/bin/sh
# Knocks before a WireGuard tunnel comes up, and closes after it went down. In wg-quick's file:
#
#   PreUp = /usr/local/bin/wireguard-hook.sh up /root/gate
#   PostDown = /usr/local/bin/wireguard-hook.sh down /root/gate
#
# The file is that of knock.sh, which must be beside this script. Where knock-agent is installed, this does the same:
#
#   PreUp = knock-agent knock gate
#   PostDown = knock-agent knock gate --close
#
# A tunnel that outlasts the grant: `knock-agent knock gate --watch --for 1h` as a service of its own.
set -u
here=$(dirname "$0")
case ${1:-} in
    up) exec "$here/knock.sh" "${2:?the file of knock.sh}" ;;
    down) exec "$here/knock.sh" "${2:?the file of knock.sh}" close ;;
    *)
        echo 'usage: wireguard-hook.sh up|down FILE' >&2
        exit 2
        ;;
esac
