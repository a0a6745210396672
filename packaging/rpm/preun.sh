# shellcheck shell=sh
# Before the last one is removed (0), not before an upgrade: packaging/deb/prerm says why.
[ "$1" -eq 0 ] || exit 0
kept=/var/lib/knock-agent-removed
if [ -e /var/lib/knock-agent/last-good-plan ]; then
    mkdir -p "$kept" && chmod 0700 "$kept"
    if ! cp /usr/bin/knock-agent "$kept/knock-agent.new" || ! mv "$kept/knock-agent.new" "$kept/knock-agent"; then
        rm -f "$kept/knock-agent.new"
        rmdir "$kept" 2>/dev/null || :
        echo "knock-agent: what ends the guard later cannot be kept in /var/lib: NOTHING WAS CHANGED, it runs as before" >&2
        exit 1
    fi
fi
systemctl --quiet disable knock-agent.service knock-agent-guard.service || :
[ ! -d /run/systemd/system ] || systemctl stop knock-agent.service knock-agent-guard.service || :
if [ -e "$kept/knock-agent" ]; then
    cat <<END
knock-agent: nobody can knock any more, and what was guarded STAYS CLOSED until the next boot; what is granted
  lasts for the rest of its time. After the next boot NOTHING IS GUARDED. To open everything now:
      $kept/knock-agent teardown
  Left are $kept, /etc/knock-agent and /var/lib/knock-agent.
END
fi
exit 0
