# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_knock_agent_global_optspecs
    string join \n h/help V/version
end

function __fish_knock_agent_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_knock_agent_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_knock_agent_using_subcommand
    set -l cmd (__fish_knock_agent_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c knock-agent -n "__fish_knock_agent_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -s V -l version -d 'Print version'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "init" -d 'Set it up: a few questions, a configuration, and the commands that open it'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "run" -d 'Guard the ports and let in who knocks (the daemon)'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "guard" -d 'Close the ports and exit (early boot); with a bad configuration, as the last good one said'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "check-config" -d 'Check the configuration file, and nothing else'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "check-ruleset" -d 'Show what would change in the firewall and what stands in its way; changes nothing'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "confirm" -d 'Keep what `run --confirm` put in force'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "status" -d 'Show who is let in and for how long'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "log" -d 'Show what happened: who was let in, refused, locked out; repairs and reloads'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "health" -d 'Tell whether all is well, for scripts and monitors'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "explain" -d 'Say why an address is or is not let through right now, and what to try'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "grant" -d 'Let an address in by hand'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "revoke" -d 'Take back what was granted'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "allow" -d 'Let a network in without a knock'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "unblock" -d 'Lift the lock-out of an address that failed too often'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "teardown" -d 'Remove everything of knock-agent from the firewall; guarded ports are open afterwards'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "cert" -d 'Make a self-signed certificate and key for step 2'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "hash-key" -d 'Print what the configuration stores instead of a key, or make a new one'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "enroll" -d 'Make a secret for one-time codes: QR code, files, one code checked'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "knock" -d 'Knock: open what a profile says, keep it open, or close it (the client)'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "connect" -d 'Connect to a port that opens to a knock, for ssh\'s ProxyCommand (the client)'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "demo" -d 'Show the whole story in private namespaces; nothing of this host is touched'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "generate" -d 'Write manual pages, completions for shells, or JSON schemas'
complete -c knock-agent -n "__fish_knock_agent_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l service -d 'The port that is closed until somebody knocks: 22, 51820/udp, 3389/both, or a name such as ssh' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l app -d 'What the service is called: the name of its section, and what clients send' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l destination -d 'Where the service is: local, or a LAN host, such as 192.168.0.42, 192.168.0.42:22 or fd00::42' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l interface-ext -d 'The interface towards the internet, or several with commas [default: those of the default routes]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l interface-int -d 'The interface towards the LAN host [default: that of the route to it]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l host -d 'How clients call this host, a name or an address, or several with commas [default: its addresses]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l duration -d 'How long the service stays open after a knock [default: 24h]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l allow -d 'Networks that need not knock, with commas, or none' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l cert -d 'A certificate of step 2 that clients trust: PEM [default: a self-signed one is made]' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l key -d 'Its key: PEM' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l two-factor -d 'Who has to give a one-time code as well, or none' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l http-port -d 'Port of step 1 [default: 80 where nobody has it, else 8080]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l https-port -d 'Port of step 2 [default: 443 where nobody has it, else 8443]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l profile -d 'Write what the client needs into this file, mode 0600, instead of showing it' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -s y -l yes -d 'Take what is usual for all that is not said'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -l force -d 'Overwrite files that are there'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand init" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l http-port -d 'Port of step 1 (plain HTTP) [default: 8080]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l https-port -d 'Port of step 2 (HTTPS) [default: 8443]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l waf-http-port -d 'Port of the proxy for step 1, which clients use; --http-port is then behind it' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l waf-https-port -d 'Port of the proxy for step 2, which clients use; --https-port is then behind it' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l waf-trusted-ips -d 'Addresses and networks that the proxy speaks from: nobody else reaches --http-port and --https-port, and who the client is is believed to nobody else [default: 127.0.0.1,::1]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l cert -d 'TLS certificate of step 2: PEM, the server\'s first, then those of its issuers' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l key -d 'TLS key of step 2: PEM' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l firewall-type -d 'How the host\'s firewall is programmed [default: nftables, or iptables where the kernel has no nf_tables]' -r -f -a "nftables\t'A table of our own in nftables'
vyos\t'The same, and the chains that VyOS has are to accept what is let in'
iptables\t'iptables and ipset, for kernels without nf_tables'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l iptables-variant -d 'With iptables, which of its programs [default: those with which the host has rules already]' -r -f -a "legacy\t'iptables-legacy-restore and so on'
nft\t'iptables-nft-restore and so on'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l log-level -d 'How much is logged to standard error: error, warn, info, debug or trace' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l log-format -d 'In what form it is logged; in systemd\'s journal, text has the fields of events too (`knock-agent log`)' -r -f -a "text\t'Lines for people; in systemd\'s journal with the fields of events'
json\t'A JSON object a line'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l nftables-table-filter -d 'The host\'s filter table; alone, it means every chain that is hooked in it [default: filter; vyos: vyos_filter]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l nftables-chain-input -d 'The host\'s chain for local services [vyos: NAME_IN-KnockPort, for IPv6 NAME6_IN-KnockPort]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l nftables-chain-forward -d 'The host\'s chain for forwarded services [vyos: NAME_FWD-KnockPort, for IPv6 NAME6_FWD-KnockPort]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l nftables-chain-default-input -d 'The host\'s chain hooked to input, where it is not every one of that table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l nftables-chain-default-output -d 'The host\'s chain hooked to output, where it drops the answers of step 1' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l nftables-chain-default-forward -d 'The host\'s chain hooked to forward, where it is not every one of that table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l nftables-table-nat -d 'The host\'s nat table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l nftables-chain-default-prerouting -d 'The host\'s chain hooked to nat prerouting' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l nftables-chain-default-postrouting -d 'The host\'s chain hooked to nat postrouting' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l sequence -d 'Guard one port by a knock sequence, without a configuration and without the two steps' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l protected-port -d 'With --sequence, the TCP port that it opens' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l window -d 'With --sequence, seconds for the whole sequence, and for which the port then stands open' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l interface -d 'With --sequence, an interface towards the world; may be repeated [default: every one but lo]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l confirm -d 'Put everything back as it was unless `knock-agent confirm` is said within this time (with nftables only)' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l without-ipset -d 'With iptables, do without ipset even where it is there: lists of -m recent, with their limits'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l service-rule-cleanup-on-shutdown -d 'Close the services too when the daemon stops (they stay open for their time otherwise)'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l strict -d 'Refuse a configuration file that others can read or change, instead of warning'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l use-sudo -d 'Run iptables and ipset through sudo (packaging/sudoers.d); with nftables not needed, a capability does it'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -l ask -d 'Show the rules and ask before anything is changed; needs a terminal'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -s y -l yes -d 'Do not ask about connections that are open to ports that will be guarded'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l http-port -d 'Port of step 1 (plain HTTP) [default: 8080]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l https-port -d 'Port of step 2 (HTTPS) [default: 8443]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l waf-http-port -d 'Port of the proxy for step 1, which clients use; --http-port is then behind it' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l waf-https-port -d 'Port of the proxy for step 2, which clients use; --https-port is then behind it' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l waf-trusted-ips -d 'Addresses and networks that the proxy speaks from: nobody else reaches --http-port and --https-port, and who the client is is believed to nobody else [default: 127.0.0.1,::1]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l cert -d 'TLS certificate of step 2: PEM, the server\'s first, then those of its issuers' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l key -d 'TLS key of step 2: PEM' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l firewall-type -d 'How the host\'s firewall is programmed [default: nftables, or iptables where the kernel has no nf_tables]' -r -f -a "nftables\t'A table of our own in nftables'
vyos\t'The same, and the chains that VyOS has are to accept what is let in'
iptables\t'iptables and ipset, for kernels without nf_tables'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l iptables-variant -d 'With iptables, which of its programs [default: those with which the host has rules already]' -r -f -a "legacy\t'iptables-legacy-restore and so on'
nft\t'iptables-nft-restore and so on'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l log-level -d 'How much is logged to standard error: error, warn, info, debug or trace' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l log-format -d 'In what form it is logged; in systemd\'s journal, text has the fields of events too (`knock-agent log`)' -r -f -a "text\t'Lines for people; in systemd\'s journal with the fields of events'
json\t'A JSON object a line'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l nftables-table-filter -d 'The host\'s filter table; alone, it means every chain that is hooked in it [default: filter; vyos: vyos_filter]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l nftables-chain-input -d 'The host\'s chain for local services [vyos: NAME_IN-KnockPort, for IPv6 NAME6_IN-KnockPort]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l nftables-chain-forward -d 'The host\'s chain for forwarded services [vyos: NAME_FWD-KnockPort, for IPv6 NAME6_FWD-KnockPort]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l nftables-chain-default-input -d 'The host\'s chain hooked to input, where it is not every one of that table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l nftables-chain-default-output -d 'The host\'s chain hooked to output, where it drops the answers of step 1' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l nftables-chain-default-forward -d 'The host\'s chain hooked to forward, where it is not every one of that table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l nftables-table-nat -d 'The host\'s nat table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l nftables-chain-default-prerouting -d 'The host\'s chain hooked to nat prerouting' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l nftables-chain-default-postrouting -d 'The host\'s chain hooked to nat postrouting' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l without-ipset -d 'With iptables, do without ipset even where it is there: lists of -m recent, with their limits'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l service-rule-cleanup-on-shutdown -d 'Close the services too when the daemon stops (they stay open for their time otherwise)'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l strict -d 'Refuse a configuration file that others can read or change, instead of warning'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -l use-sudo -d 'Run iptables and ipset through sudo (packaging/sudoers.d); with nftables not needed, a capability does it'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand guard" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l http-port -d 'Port of step 1 (plain HTTP) [default: 8080]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l https-port -d 'Port of step 2 (HTTPS) [default: 8443]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l waf-http-port -d 'Port of the proxy for step 1, which clients use; --http-port is then behind it' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l waf-https-port -d 'Port of the proxy for step 2, which clients use; --https-port is then behind it' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l waf-trusted-ips -d 'Addresses and networks that the proxy speaks from: nobody else reaches --http-port and --https-port, and who the client is is believed to nobody else [default: 127.0.0.1,::1]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l cert -d 'TLS certificate of step 2: PEM, the server\'s first, then those of its issuers' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l key -d 'TLS key of step 2: PEM' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l firewall-type -d 'How the host\'s firewall is programmed [default: nftables, or iptables where the kernel has no nf_tables]' -r -f -a "nftables\t'A table of our own in nftables'
vyos\t'The same, and the chains that VyOS has are to accept what is let in'
iptables\t'iptables and ipset, for kernels without nf_tables'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l iptables-variant -d 'With iptables, which of its programs [default: those with which the host has rules already]' -r -f -a "legacy\t'iptables-legacy-restore and so on'
nft\t'iptables-nft-restore and so on'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l log-level -d 'How much is logged to standard error: error, warn, info, debug or trace' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l log-format -d 'In what form it is logged; in systemd\'s journal, text has the fields of events too (`knock-agent log`)' -r -f -a "text\t'Lines for people; in systemd\'s journal with the fields of events'
json\t'A JSON object a line'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l nftables-table-filter -d 'The host\'s filter table; alone, it means every chain that is hooked in it [default: filter; vyos: vyos_filter]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l nftables-chain-input -d 'The host\'s chain for local services [vyos: NAME_IN-KnockPort, for IPv6 NAME6_IN-KnockPort]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l nftables-chain-forward -d 'The host\'s chain for forwarded services [vyos: NAME_FWD-KnockPort, for IPv6 NAME6_FWD-KnockPort]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l nftables-chain-default-input -d 'The host\'s chain hooked to input, where it is not every one of that table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l nftables-chain-default-output -d 'The host\'s chain hooked to output, where it drops the answers of step 1' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l nftables-chain-default-forward -d 'The host\'s chain hooked to forward, where it is not every one of that table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l nftables-table-nat -d 'The host\'s nat table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l nftables-chain-default-prerouting -d 'The host\'s chain hooked to nat prerouting' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l nftables-chain-default-postrouting -d 'The host\'s chain hooked to nat postrouting' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l without-ipset -d 'With iptables, do without ipset even where it is there: lists of -m recent, with their limits'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l service-rule-cleanup-on-shutdown -d 'Close the services too when the daemon stops (they stay open for their time otherwise)'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l strict -d 'Refuse a configuration file that others can read or change, instead of warning'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l use-sudo -d 'Run iptables and ipset through sudo (packaging/sudoers.d); with nftables not needed, a capability does it'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -l json -d 'Print JSON for programs'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-config" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l http-port -d 'Port of step 1 (plain HTTP) [default: 8080]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l https-port -d 'Port of step 2 (HTTPS) [default: 8443]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l waf-http-port -d 'Port of the proxy for step 1, which clients use; --http-port is then behind it' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l waf-https-port -d 'Port of the proxy for step 2, which clients use; --https-port is then behind it' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l waf-trusted-ips -d 'Addresses and networks that the proxy speaks from: nobody else reaches --http-port and --https-port, and who the client is is believed to nobody else [default: 127.0.0.1,::1]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l cert -d 'TLS certificate of step 2: PEM, the server\'s first, then those of its issuers' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l key -d 'TLS key of step 2: PEM' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l firewall-type -d 'How the host\'s firewall is programmed [default: nftables, or iptables where the kernel has no nf_tables]' -r -f -a "nftables\t'A table of our own in nftables'
vyos\t'The same, and the chains that VyOS has are to accept what is let in'
iptables\t'iptables and ipset, for kernels without nf_tables'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l iptables-variant -d 'With iptables, which of its programs [default: those with which the host has rules already]' -r -f -a "legacy\t'iptables-legacy-restore and so on'
nft\t'iptables-nft-restore and so on'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l log-level -d 'How much is logged to standard error: error, warn, info, debug or trace' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l log-format -d 'In what form it is logged; in systemd\'s journal, text has the fields of events too (`knock-agent log`)' -r -f -a "text\t'Lines for people; in systemd\'s journal with the fields of events'
json\t'A JSON object a line'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l nftables-table-filter -d 'The host\'s filter table; alone, it means every chain that is hooked in it [default: filter; vyos: vyos_filter]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l nftables-chain-input -d 'The host\'s chain for local services [vyos: NAME_IN-KnockPort, for IPv6 NAME6_IN-KnockPort]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l nftables-chain-forward -d 'The host\'s chain for forwarded services [vyos: NAME_FWD-KnockPort, for IPv6 NAME6_FWD-KnockPort]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l nftables-chain-default-input -d 'The host\'s chain hooked to input, where it is not every one of that table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l nftables-chain-default-output -d 'The host\'s chain hooked to output, where it drops the answers of step 1' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l nftables-chain-default-forward -d 'The host\'s chain hooked to forward, where it is not every one of that table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l nftables-table-nat -d 'The host\'s nat table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l nftables-chain-default-prerouting -d 'The host\'s chain hooked to nat prerouting' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l nftables-chain-default-postrouting -d 'The host\'s chain hooked to nat postrouting' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l print -d 'Print the planned rules in this language instead of the findings' -r -f -a "nft\t'Text for `nft -f`'
iptables\t'Text for ipset restore, iptables-restore and ip6tables-restore'
vyos\t'VyOS commands that have it accept what is let in'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l without-ipset -d 'With iptables, do without ipset even where it is there: lists of -m recent, with their limits'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l service-rule-cleanup-on-shutdown -d 'Close the services too when the daemon stops (they stay open for their time otherwise)'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l strict -d 'Refuse a configuration file that others can read or change, instead of warning'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l use-sudo -d 'Run iptables and ipset through sudo (packaging/sudoers.d); with nftables not needed, a capability does it'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l offline -d 'Do not ask the kernel: plan only'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l json -d 'Print JSON for programs'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -l diff-exit -d 'Exit with 1 if the rules in the kernel differ from the plan'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand check-ruleset" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand confirm" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand confirm" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand status" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand status" -s w -l watch -d 'Show it again every so many seconds, until Ctrl-C' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand status" -l json -d 'Print JSON for programs'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand status" -l all -d 'List every grant, however many there are'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand status" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand log" -l since -d 'Only what happened since then: a time ago such as 90m, 2h or 7d, or 2027-01-31T18:00:00Z' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand log" -l app -d 'Only of this app' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand log" -l address -d 'Only about this address or network' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand log" -l event -d 'Only these events, such as granted,revoked' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand log" -s n -l lines -d 'Only the last so many' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand log" -l file -d 'Read this file instead of the journal; `-` is standard input' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand log" -l unit -d 'The unit whose journal is read' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand log" -s f -l follow -d 'Go on with what happens from now on'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand log" -l json -d 'Print a JSON object a line'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand log" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l http-port -d 'Port of step 1 (plain HTTP) [default: 8080]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l https-port -d 'Port of step 2 (HTTPS) [default: 8443]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l waf-http-port -d 'Port of the proxy for step 1, which clients use; --http-port is then behind it' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l waf-https-port -d 'Port of the proxy for step 2, which clients use; --https-port is then behind it' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l waf-trusted-ips -d 'Addresses and networks that the proxy speaks from: nobody else reaches --http-port and --https-port, and who the client is is believed to nobody else [default: 127.0.0.1,::1]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l cert -d 'TLS certificate of step 2: PEM, the server\'s first, then those of its issuers' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l key -d 'TLS key of step 2: PEM' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l firewall-type -d 'How the host\'s firewall is programmed [default: nftables, or iptables where the kernel has no nf_tables]' -r -f -a "nftables\t'A table of our own in nftables'
vyos\t'The same, and the chains that VyOS has are to accept what is let in'
iptables\t'iptables and ipset, for kernels without nf_tables'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l iptables-variant -d 'With iptables, which of its programs [default: those with which the host has rules already]' -r -f -a "legacy\t'iptables-legacy-restore and so on'
nft\t'iptables-nft-restore and so on'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l log-level -d 'How much is logged to standard error: error, warn, info, debug or trace' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l log-format -d 'In what form it is logged; in systemd\'s journal, text has the fields of events too (`knock-agent log`)' -r -f -a "text\t'Lines for people; in systemd\'s journal with the fields of events'
json\t'A JSON object a line'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l nftables-table-filter -d 'The host\'s filter table; alone, it means every chain that is hooked in it [default: filter; vyos: vyos_filter]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l nftables-chain-input -d 'The host\'s chain for local services [vyos: NAME_IN-KnockPort, for IPv6 NAME6_IN-KnockPort]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l nftables-chain-forward -d 'The host\'s chain for forwarded services [vyos: NAME_FWD-KnockPort, for IPv6 NAME6_FWD-KnockPort]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l nftables-chain-default-input -d 'The host\'s chain hooked to input, where it is not every one of that table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l nftables-chain-default-output -d 'The host\'s chain hooked to output, where it drops the answers of step 1' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l nftables-chain-default-forward -d 'The host\'s chain hooked to forward, where it is not every one of that table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l nftables-table-nat -d 'The host\'s nat table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l nftables-chain-default-prerouting -d 'The host\'s chain hooked to nat prerouting' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l nftables-chain-default-postrouting -d 'The host\'s chain hooked to nat postrouting' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l without-ipset -d 'With iptables, do without ipset even where it is there: lists of -m recent, with their limits'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l service-rule-cleanup-on-shutdown -d 'Close the services too when the daemon stops (they stay open for their time otherwise)'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l strict -d 'Refuse a configuration file that others can read or change, instead of warning'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l use-sudo -d 'Run iptables and ipset through sudo (packaging/sudoers.d); with nftables not needed, a capability does it'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -l json -d 'Print JSON for programs'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand health" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l http-port -d 'Port of step 1 (plain HTTP) [default: 8080]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l https-port -d 'Port of step 2 (HTTPS) [default: 8443]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l waf-http-port -d 'Port of the proxy for step 1, which clients use; --http-port is then behind it' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l waf-https-port -d 'Port of the proxy for step 2, which clients use; --https-port is then behind it' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l waf-trusted-ips -d 'Addresses and networks that the proxy speaks from: nobody else reaches --http-port and --https-port, and who the client is is believed to nobody else [default: 127.0.0.1,::1]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l cert -d 'TLS certificate of step 2: PEM, the server\'s first, then those of its issuers' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l key -d 'TLS key of step 2: PEM' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l firewall-type -d 'How the host\'s firewall is programmed [default: nftables, or iptables where the kernel has no nf_tables]' -r -f -a "nftables\t'A table of our own in nftables'
vyos\t'The same, and the chains that VyOS has are to accept what is let in'
iptables\t'iptables and ipset, for kernels without nf_tables'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l iptables-variant -d 'With iptables, which of its programs [default: those with which the host has rules already]' -r -f -a "legacy\t'iptables-legacy-restore and so on'
nft\t'iptables-nft-restore and so on'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l log-level -d 'How much is logged to standard error: error, warn, info, debug or trace' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l log-format -d 'In what form it is logged; in systemd\'s journal, text has the fields of events too (`knock-agent log`)' -r -f -a "text\t'Lines for people; in systemd\'s journal with the fields of events'
json\t'A JSON object a line'"
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l nftables-table-filter -d 'The host\'s filter table; alone, it means every chain that is hooked in it [default: filter; vyos: vyos_filter]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l nftables-chain-input -d 'The host\'s chain for local services [vyos: NAME_IN-KnockPort, for IPv6 NAME6_IN-KnockPort]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l nftables-chain-forward -d 'The host\'s chain for forwarded services [vyos: NAME_FWD-KnockPort, for IPv6 NAME6_FWD-KnockPort]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l nftables-chain-default-input -d 'The host\'s chain hooked to input, where it is not every one of that table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l nftables-chain-default-output -d 'The host\'s chain hooked to output, where it drops the answers of step 1' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l nftables-chain-default-forward -d 'The host\'s chain hooked to forward, where it is not every one of that table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l nftables-table-nat -d 'The host\'s nat table' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l nftables-chain-default-prerouting -d 'The host\'s chain hooked to nat prerouting' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l nftables-chain-default-postrouting -d 'The host\'s chain hooked to nat postrouting' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l by -d 'The interface by which it comes in [default: as the route to it says]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l to -d 'The address of this host that it turns to [default: one of that interface]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l without-ipset -d 'With iptables, do without ipset even where it is there: lists of -m recent, with their limits'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l service-rule-cleanup-on-shutdown -d 'Close the services too when the daemon stops (they stay open for their time otherwise)'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l strict -d 'Refuse a configuration file that others can read or change, instead of warning'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l use-sudo -d 'Run iptables and ipset through sudo (packaging/sudoers.d); with nftables not needed, a capability does it'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l no-probe -d 'Do not ask a LAN host for a connection'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -l json -d 'Print JSON for programs'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand grant" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand grant" -l for -d 'For how long: 90s, 15m, 24h, 30d; the app\'s duration unless given' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand grant" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand revoke" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand revoke" -l app -d 'With --all: of this app only' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand revoke" -l all -d 'Take back every grant'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand revoke" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand allow" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand allow" -l app -d 'To this app only, by the name of its section; to every app unless given' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand allow" -l for -d 'For how long: 90s, 15m, 24h, 30d; until --flush unless given' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand allow" -l list -d 'Show the networks that are let in'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand allow" -l flush -d 'Forget all networks but those of the configuration'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand allow" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand unblock" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand unblock" -l all -d 'Lift every lock-out'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand unblock" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand teardown" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand teardown" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand cert" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand cert" -l cert -d 'Where the certificate goes' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand cert" -l key -d 'Where the key goes; readable by its owner only' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand cert" -l name -d 'A host name or address clients use; may be given several times' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand cert" -l days -d 'For how many days it is valid, 1 to 3650' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand cert" -l force -d 'Overwrite files that are there'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand cert" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand hash-key" -l generate -d 'Make a new random key'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand hash-key" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l sequence -d 'Make a client of this name whose knocks change with time, as `global.time_sequence` says' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l app -d 'What the client\'s knocks open; may be given several times' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l knocks -d 'How many knocks the client sends, 1 to 8 [default: 4; with knock-knock 3]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l pin-file -d 'Take the PIN from the first line of this file, instead of asking for it' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l duration -d 'How long it is open for the client [default: as the app says]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l expires -d 'From when on the client\'s knocks open nothing' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l host -d 'The gateway as the client calls it, for the client\'s profile' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l profile -d 'Also write the client\'s profile, which goes into ~/.config/knock-agent/ there' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l file -d 'Where the secret is saved [default: USER.json]' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l folder -d 'The 2FA folder, where the file is named after an access key, which is asked for' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l png -d 'Also write the QR code as PNG' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l svg -d 'Also write the QR code as SVG' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l issuer -d 'Which gateway the codes are for; shown in the authenticator app' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l interval -d 'Seconds that a code is shown; few apps can do other than 30' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l digits -d 'Digits of a code; few apps can do other than 6' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l no-pin -d 'Use no PIN'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l uri -d 'Also print the otpauth URI, which is the secret'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -l force -d 'Overwrite files that are there'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand enroll" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l app -d 'Another app than the profile\'s' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l for -d 'How long it shall stay open; the gateway may allow less' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l wait -d 'Then wait until the service\'s TCP port can be reached, so long at most' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l port -d 'The TCP port to try, instead of the profile\'s `check`' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l then -d 'Then run this program, without a shell; everything after --then belongs to it' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l sequence -d 'Knock at these ports in this order, without the two steps: tcp/1234,udp/7000,9012' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l target -d 'With a sequence, whom to knock at, where no profile says so' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l delay -d 'With a sequence, seconds from one knock to the next [default: the profile\'s, 0.3]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l sequence-secret-file -d 'Knock at ports that change with time, by the secret in the first line of this file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l sequence-secret-fd -d 'The same, by the secret that comes out of this file descriptor' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l pin-file -d 'Also take the PIN from the first line of this file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l sequence-kind -d 'By which rule knocks change: secret, or knock-knock as that program\'s' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l knocks -d 'How many knocks there are, 1 to 8 [default: 4; with knock-knock 3]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l knock-ports -d 'The ports they are at [default: 20000-31999]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l knock-every -d 'How often they change [default: 30s]' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -s 4 -l ipv4 -d 'Over IPv4 only'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -s 6 -l ipv6 -d 'Over IPv6 only'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l close -d 'Close what was opened for you, instead'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l check -d 'Then try the service\'s TCP port'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l watch -d 'Keep it open until a signal comes: knock again before the time ends, and when the network changes'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l sequence-code -d 'The same, by the code of an authenticator app, which is asked for (the kind knock-knock)'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l ask-pin -d 'Also ask for the PIN'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l knock-lengths -d 'The lengths of datagrams count'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -l knock-tcp -d 'Knock at TCP ports'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand knock" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand connect" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand demo" -s c -l config -d 'The configuration file' -r -F
complete -c knock-agent -n "__fish_knock_agent_using_subcommand demo" -l sequence -d 'Tell of a knock sequence instead, with the defaults of `run --sequence`; takes half a minute'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand demo" -s h -l help -d 'Print help'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand generate" -l only -d 'Only the file of this name' -r
complete -c knock-agent -n "__fish_knock_agent_using_subcommand generate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "init" -d 'Set it up: a few questions, a configuration, and the commands that open it'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "run" -d 'Guard the ports and let in who knocks (the daemon)'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "guard" -d 'Close the ports and exit (early boot); with a bad configuration, as the last good one said'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "check-config" -d 'Check the configuration file, and nothing else'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "check-ruleset" -d 'Show what would change in the firewall and what stands in its way; changes nothing'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "confirm" -d 'Keep what `run --confirm` put in force'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "status" -d 'Show who is let in and for how long'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "log" -d 'Show what happened: who was let in, refused, locked out; repairs and reloads'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "health" -d 'Tell whether all is well, for scripts and monitors'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "explain" -d 'Say why an address is or is not let through right now, and what to try'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "grant" -d 'Let an address in by hand'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "revoke" -d 'Take back what was granted'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "allow" -d 'Let a network in without a knock'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "unblock" -d 'Lift the lock-out of an address that failed too often'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "teardown" -d 'Remove everything of knock-agent from the firewall; guarded ports are open afterwards'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "cert" -d 'Make a self-signed certificate and key for step 2'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "hash-key" -d 'Print what the configuration stores instead of a key, or make a new one'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "enroll" -d 'Make a secret for one-time codes: QR code, files, one code checked'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "knock" -d 'Knock: open what a profile says, keep it open, or close it (the client)'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "connect" -d 'Connect to a port that opens to a knock, for ssh\'s ProxyCommand (the client)'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "demo" -d 'Show the whole story in private namespaces; nothing of this host is touched'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "generate" -d 'Write manual pages, completions for shells, or JSON schemas'
complete -c knock-agent -n "__fish_knock_agent_using_subcommand help; and not __fish_seen_subcommand_from init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
