# shellcheck shell=sh
# After installing (1) and upgrading (2): packaging/deb/postinst says why.
systemd-sysusers knock-agent.conf >/dev/null 2>&1 || :
systemd-tmpfiles --create knock-agent.conf >/dev/null 2>&1 || :
rm -rf /var/lib/knock-agent-removed
[ ! -d /run/systemd/system ] || systemctl --system daemon-reload || :
if [ "$1" -gt 1 ]; then
    # One that was stopped is not started; one that ended by a failure is, as this version may mend that.
    again=''
    if [ -d /run/systemd/system ]; then
        case $(systemctl is-active knock-agent.service || :) in
            active | activating | reloading) again=try-restart ;;
            failed) ! systemctl --quiet is-enabled knock-agent.service || again=restart ;;
        esac
    fi
    if [ -n "$again" ]; then
        flags=$(systemctl show --property ExecStart --value knock-agent.service |
            sed -n 's/.* argv\[\]=[^ ]* run \(.*\) ; ignore_errors=.*/\1/p')
        status=0
        # shellcheck disable=SC2086 # words
        said=$(/usr/bin/knock-agent check-config $flags 2>&1) || status=$?
        if [ "$status" -eq 78 ]; then
            printf '%s\n' "$said" \
                "knock-agent: THIS VERSION REFUSES THE CONFIGURATION. The daemon of before, if it ran, goes on running." \
                "knock-agent: put it right, then: systemctl restart knock-agent" >&2
        else
            systemctl "$again" knock-agent.service || :
            systemctl --quiet is-active knock-agent.service || printf '%s\n' \
                "knock-agent: THE DAEMON DOES NOT RUN (journalctl -u knock-agent says why). What was closed is closed," \
                "knock-agent: what is granted lasts for the rest of its time, and nobody else gets in." >&2
        fi
    fi
else
    echo "knock-agent: nothing is guarded, nothing was started: /usr/share/doc/knock-agent/docs/install.md has what is next"
fi
exit 0
