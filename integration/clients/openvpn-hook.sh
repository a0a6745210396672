#!/bin/sh
# Knocks before OpenVPN connects, and closes after it went down. OpenVPN itself has no hook before its first packet,
# so the unit that starts it has:
#
#   # systemctl edit openvpn-client@office
#   [Service]
#   ExecStartPre=/usr/local/bin/openvpn-hook.sh pre-connect /root/gate
#   ExecStopPost=/usr/local/bin/openvpn-hook.sh down /root/gate
#
# For the next connection after a lost one, in the client's configuration (the words that OpenVPN adds are ignored):
#
#   script-security 2
#   down-pre
#   down "/usr/local/bin/openvpn-hook.sh pre-connect /root/gate"
#
# The file is that of knock.sh, which must be beside this script. OpenVPN runs with few variables and often without a
# terminal: keys come from files.
set -u
here=$(dirname "$0")
case ${1:-} in
    pre-connect) exec "$here/knock.sh" "${2:?the file of knock.sh}" ;;
    down) exec "$here/knock.sh" "${2:?the file of knock.sh}" close ;;
    *)
        echo 'usage: openvpn-hook.sh pre-connect|down FILE' >&2
        exit 2
        ;;
esac
