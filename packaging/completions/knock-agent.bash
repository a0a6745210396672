_knock__agent() {
    local i cur prev opts cmd
    COMPREPLY=()
    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
        cur="$2"
    else
        cur="${COMP_WORDS[COMP_CWORD]}"
    fi
    prev="$3"
    cmd=""
    opts=""

    for i in "${COMP_WORDS[@]:0:COMP_CWORD}"
    do
        case "${cmd},${i}" in
            ",$1")
                cmd="knock__agent"
                ;;
            knock__agent,allow)
                cmd="knock__agent__subcmd__allow"
                ;;
            knock__agent,cert)
                cmd="knock__agent__subcmd__cert"
                ;;
            knock__agent,check-config)
                cmd="knock__agent__subcmd__check__subcmd__config"
                ;;
            knock__agent,check-ruleset)
                cmd="knock__agent__subcmd__check__subcmd__ruleset"
                ;;
            knock__agent,confirm)
                cmd="knock__agent__subcmd__confirm"
                ;;
            knock__agent,connect)
                cmd="knock__agent__subcmd__connect"
                ;;
            knock__agent,demo)
                cmd="knock__agent__subcmd__demo"
                ;;
            knock__agent,enroll)
                cmd="knock__agent__subcmd__enroll"
                ;;
            knock__agent,explain)
                cmd="knock__agent__subcmd__explain"
                ;;
            knock__agent,generate)
                cmd="knock__agent__subcmd__generate"
                ;;
            knock__agent,grant)
                cmd="knock__agent__subcmd__grant"
                ;;
            knock__agent,guard)
                cmd="knock__agent__subcmd__guard"
                ;;
            knock__agent,hash-key)
                cmd="knock__agent__subcmd__hash__subcmd__key"
                ;;
            knock__agent,health)
                cmd="knock__agent__subcmd__health"
                ;;
            knock__agent,help)
                cmd="knock__agent__subcmd__help"
                ;;
            knock__agent,init)
                cmd="knock__agent__subcmd__init"
                ;;
            knock__agent,knock)
                cmd="knock__agent__subcmd__knock"
                ;;
            knock__agent,log)
                cmd="knock__agent__subcmd__log"
                ;;
            knock__agent,revoke)
                cmd="knock__agent__subcmd__revoke"
                ;;
            knock__agent,run)
                cmd="knock__agent__subcmd__run"
                ;;
            knock__agent,status)
                cmd="knock__agent__subcmd__status"
                ;;
            knock__agent,teardown)
                cmd="knock__agent__subcmd__teardown"
                ;;
            knock__agent,unblock)
                cmd="knock__agent__subcmd__unblock"
                ;;
            knock__agent__subcmd__help,allow)
                cmd="knock__agent__subcmd__help__subcmd__allow"
                ;;
            knock__agent__subcmd__help,cert)
                cmd="knock__agent__subcmd__help__subcmd__cert"
                ;;
            knock__agent__subcmd__help,check-config)
                cmd="knock__agent__subcmd__help__subcmd__check__subcmd__config"
                ;;
            knock__agent__subcmd__help,check-ruleset)
                cmd="knock__agent__subcmd__help__subcmd__check__subcmd__ruleset"
                ;;
            knock__agent__subcmd__help,confirm)
                cmd="knock__agent__subcmd__help__subcmd__confirm"
                ;;
            knock__agent__subcmd__help,connect)
                cmd="knock__agent__subcmd__help__subcmd__connect"
                ;;
            knock__agent__subcmd__help,demo)
                cmd="knock__agent__subcmd__help__subcmd__demo"
                ;;
            knock__agent__subcmd__help,enroll)
                cmd="knock__agent__subcmd__help__subcmd__enroll"
                ;;
            knock__agent__subcmd__help,explain)
                cmd="knock__agent__subcmd__help__subcmd__explain"
                ;;
            knock__agent__subcmd__help,generate)
                cmd="knock__agent__subcmd__help__subcmd__generate"
                ;;
            knock__agent__subcmd__help,grant)
                cmd="knock__agent__subcmd__help__subcmd__grant"
                ;;
            knock__agent__subcmd__help,guard)
                cmd="knock__agent__subcmd__help__subcmd__guard"
                ;;
            knock__agent__subcmd__help,hash-key)
                cmd="knock__agent__subcmd__help__subcmd__hash__subcmd__key"
                ;;
            knock__agent__subcmd__help,health)
                cmd="knock__agent__subcmd__help__subcmd__health"
                ;;
            knock__agent__subcmd__help,help)
                cmd="knock__agent__subcmd__help__subcmd__help"
                ;;
            knock__agent__subcmd__help,init)
                cmd="knock__agent__subcmd__help__subcmd__init"
                ;;
            knock__agent__subcmd__help,knock)
                cmd="knock__agent__subcmd__help__subcmd__knock"
                ;;
            knock__agent__subcmd__help,log)
                cmd="knock__agent__subcmd__help__subcmd__log"
                ;;
            knock__agent__subcmd__help,revoke)
                cmd="knock__agent__subcmd__help__subcmd__revoke"
                ;;
            knock__agent__subcmd__help,run)
                cmd="knock__agent__subcmd__help__subcmd__run"
                ;;
            knock__agent__subcmd__help,status)
                cmd="knock__agent__subcmd__help__subcmd__status"
                ;;
            knock__agent__subcmd__help,teardown)
                cmd="knock__agent__subcmd__help__subcmd__teardown"
                ;;
            knock__agent__subcmd__help,unblock)
                cmd="knock__agent__subcmd__help__subcmd__unblock"
                ;;
            *)
                ;;
        esac
    done

    case "${cmd}" in
        knock__agent)
            opts="-h -V --help --version init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 1 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__allow)
            opts="-c -h --config --app --for --list --flush --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --app)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --for)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__cert)
            opts="-c -h --config --cert --key --name --days --force --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cert)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --name)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --days)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__check__subcmd__config)
            opts="-c -h --config --http-port --https-port --waf-http-port --waf-https-port --waf-trusted-ips --cert --key --firewall-type --iptables-variant --without-ipset --service-rule-cleanup-on-shutdown --strict --log-level --log-format --use-sudo --nftables-table-filter --nftables-chain-input --nftables-chain-forward --nftables-chain-default-input --nftables-chain-default-output --nftables-chain-default-forward --nftables-table-nat --nftables-chain-default-prerouting --nftables-chain-default-postrouting --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --http-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --https-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-http-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-https-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-trusted-ips)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cert)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --firewall-type)
                    COMPREPLY=($(compgen -W "nftables vyos iptables" -- "${cur}"))
                    return 0
                    ;;
                --iptables-variant)
                    COMPREPLY=($(compgen -W "legacy nft" -- "${cur}"))
                    return 0
                    ;;
                --log-level)
                    COMPREPLY=($(compgen -W "error warn info debug trace" -- "${cur}"))
                    return 0
                    ;;
                --log-format)
                    COMPREPLY=($(compgen -W "text json" -- "${cur}"))
                    return 0
                    ;;
                --nftables-table-filter)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-input)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-forward)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-input)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-output)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-forward)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-table-nat)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-prerouting)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-postrouting)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__check__subcmd__ruleset)
            opts="-c -h --config --http-port --https-port --waf-http-port --waf-https-port --waf-trusted-ips --cert --key --firewall-type --iptables-variant --without-ipset --service-rule-cleanup-on-shutdown --strict --log-level --log-format --use-sudo --nftables-table-filter --nftables-chain-input --nftables-chain-forward --nftables-chain-default-input --nftables-chain-default-output --nftables-chain-default-forward --nftables-table-nat --nftables-chain-default-prerouting --nftables-chain-default-postrouting --offline --print --json --diff-exit --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --http-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --https-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-http-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-https-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-trusted-ips)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cert)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --firewall-type)
                    COMPREPLY=($(compgen -W "nftables vyos iptables" -- "${cur}"))
                    return 0
                    ;;
                --iptables-variant)
                    COMPREPLY=($(compgen -W "legacy nft" -- "${cur}"))
                    return 0
                    ;;
                --log-level)
                    COMPREPLY=($(compgen -W "error warn info debug trace" -- "${cur}"))
                    return 0
                    ;;
                --log-format)
                    COMPREPLY=($(compgen -W "text json" -- "${cur}"))
                    return 0
                    ;;
                --nftables-table-filter)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-input)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-forward)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-input)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-output)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-forward)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-table-nat)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-prerouting)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-postrouting)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --print)
                    COMPREPLY=($(compgen -W "nft iptables vyos" -- "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__confirm)
            opts="-c -h --config --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__connect)
            opts="-h --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__demo)
            opts="-c -h --config --sequence --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__enroll)
            opts="-c -h --sequence --app --knocks --pin-file --no-pin --duration --expires --host --profile --config --file --folder --png --svg --uri --issuer --interval --digits --force --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --sequence)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --app)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --knocks)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --pin-file)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --duration)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --expires)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --host)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --profile)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --file)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --folder)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --png)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --svg)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --issuer)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --interval)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --digits)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__explain)
            opts="-c -h --config --http-port --https-port --waf-http-port --waf-https-port --waf-trusted-ips --cert --key --firewall-type --iptables-variant --without-ipset --service-rule-cleanup-on-shutdown --strict --log-level --log-format --use-sudo --nftables-table-filter --nftables-chain-input --nftables-chain-forward --nftables-chain-default-input --nftables-chain-default-output --nftables-chain-default-forward --nftables-table-nat --nftables-chain-default-prerouting --nftables-chain-default-postrouting --by --to --no-probe --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --http-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --https-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-http-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-https-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-trusted-ips)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cert)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --firewall-type)
                    COMPREPLY=($(compgen -W "nftables vyos iptables" -- "${cur}"))
                    return 0
                    ;;
                --iptables-variant)
                    COMPREPLY=($(compgen -W "legacy nft" -- "${cur}"))
                    return 0
                    ;;
                --log-level)
                    COMPREPLY=($(compgen -W "error warn info debug trace" -- "${cur}"))
                    return 0
                    ;;
                --log-format)
                    COMPREPLY=($(compgen -W "text json" -- "${cur}"))
                    return 0
                    ;;
                --nftables-table-filter)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-input)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-forward)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-input)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-output)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-forward)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-table-nat)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-prerouting)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-postrouting)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --by)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --to)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__generate)
            opts="-h --only --help man completions schema"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --only)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__grant)
            opts="-c -h --config --for --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --for)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__guard)
            opts="-c -h --config --http-port --https-port --waf-http-port --waf-https-port --waf-trusted-ips --cert --key --firewall-type --iptables-variant --without-ipset --service-rule-cleanup-on-shutdown --strict --log-level --log-format --use-sudo --nftables-table-filter --nftables-chain-input --nftables-chain-forward --nftables-chain-default-input --nftables-chain-default-output --nftables-chain-default-forward --nftables-table-nat --nftables-chain-default-prerouting --nftables-chain-default-postrouting --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --http-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --https-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-http-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-https-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-trusted-ips)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cert)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --firewall-type)
                    COMPREPLY=($(compgen -W "nftables vyos iptables" -- "${cur}"))
                    return 0
                    ;;
                --iptables-variant)
                    COMPREPLY=($(compgen -W "legacy nft" -- "${cur}"))
                    return 0
                    ;;
                --log-level)
                    COMPREPLY=($(compgen -W "error warn info debug trace" -- "${cur}"))
                    return 0
                    ;;
                --log-format)
                    COMPREPLY=($(compgen -W "text json" -- "${cur}"))
                    return 0
                    ;;
                --nftables-table-filter)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-input)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-forward)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-input)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-output)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-forward)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-table-nat)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-prerouting)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-postrouting)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__hash__subcmd__key)
            opts="-h --generate --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__health)
            opts="-c -h --config --http-port --https-port --waf-http-port --waf-https-port --waf-trusted-ips --cert --key --firewall-type --iptables-variant --without-ipset --service-rule-cleanup-on-shutdown --strict --log-level --log-format --use-sudo --nftables-table-filter --nftables-chain-input --nftables-chain-forward --nftables-chain-default-input --nftables-chain-default-output --nftables-chain-default-forward --nftables-table-nat --nftables-chain-default-prerouting --nftables-chain-default-postrouting --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --http-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --https-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-http-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-https-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-trusted-ips)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cert)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --firewall-type)
                    COMPREPLY=($(compgen -W "nftables vyos iptables" -- "${cur}"))
                    return 0
                    ;;
                --iptables-variant)
                    COMPREPLY=($(compgen -W "legacy nft" -- "${cur}"))
                    return 0
                    ;;
                --log-level)
                    COMPREPLY=($(compgen -W "error warn info debug trace" -- "${cur}"))
                    return 0
                    ;;
                --log-format)
                    COMPREPLY=($(compgen -W "text json" -- "${cur}"))
                    return 0
                    ;;
                --nftables-table-filter)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-input)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-forward)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-input)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-output)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-forward)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-table-nat)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-prerouting)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-postrouting)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help)
            opts="init run guard check-config check-ruleset confirm status log health explain grant revoke allow unblock teardown cert hash-key enroll knock connect demo generate help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__allow)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__cert)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__check__subcmd__config)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__check__subcmd__ruleset)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__confirm)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__connect)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__demo)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__enroll)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__explain)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__generate)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__grant)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__guard)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__hash__subcmd__key)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__health)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__help)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__init)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__knock)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__log)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__revoke)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__run)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__status)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__teardown)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__help__subcmd__unblock)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__init)
            opts="-c -y -h --config --service --app --destination --interface-ext --interface-int --host --duration --allow --cert --key --two-factor --http-port --https-port --profile --yes --force --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --service)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --app)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --destination)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --interface-ext)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --interface-int)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --host)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --duration)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --allow)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cert)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --two-factor)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --http-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --https-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --profile)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__knock)
            opts="-4 -6 -h --app --ipv4 --ipv6 --for --close --check --wait --port --watch --then --sequence --target --delay --sequence-secret-file --sequence-secret-fd --sequence-code --ask-pin --pin-file --sequence-kind --knocks --knock-ports --knock-lengths --knock-tcp --knock-every --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --app)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --for)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --wait)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --then)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --sequence)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --target)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --delay)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --sequence-secret-file)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --sequence-secret-fd)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --pin-file)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --sequence-kind)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --knocks)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --knock-ports)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --knock-every)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__log)
            opts="-n -f -h --since --app --address --event --lines --follow --json --file --unit --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --since)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --app)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --address)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --event)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --lines)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -n)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --file)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --unit)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__revoke)
            opts="-c -h --config --all --app --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --app)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__run)
            opts="-c -y -h --config --http-port --https-port --waf-http-port --waf-https-port --waf-trusted-ips --cert --key --firewall-type --iptables-variant --without-ipset --service-rule-cleanup-on-shutdown --strict --log-level --log-format --use-sudo --nftables-table-filter --nftables-chain-input --nftables-chain-forward --nftables-chain-default-input --nftables-chain-default-output --nftables-chain-default-forward --nftables-table-nat --nftables-chain-default-prerouting --nftables-chain-default-postrouting --sequence --protected-port --window --interface --ask --yes --confirm --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --http-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --https-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-http-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-https-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --waf-trusted-ips)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cert)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --firewall-type)
                    COMPREPLY=($(compgen -W "nftables vyos iptables" -- "${cur}"))
                    return 0
                    ;;
                --iptables-variant)
                    COMPREPLY=($(compgen -W "legacy nft" -- "${cur}"))
                    return 0
                    ;;
                --log-level)
                    COMPREPLY=($(compgen -W "error warn info debug trace" -- "${cur}"))
                    return 0
                    ;;
                --log-format)
                    COMPREPLY=($(compgen -W "text json" -- "${cur}"))
                    return 0
                    ;;
                --nftables-table-filter)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-input)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-forward)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-input)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-output)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-forward)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-table-nat)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-prerouting)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nftables-chain-default-postrouting)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --sequence)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --protected-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --window)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --interface)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --confirm)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__status)
            opts="-c -w -h --config --json --watch --all --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --watch)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -w)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__teardown)
            opts="-c -h --config --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        knock__agent__subcmd__unblock)
            opts="-c -h --config --all --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -c)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
    esac
}

if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _knock__agent -o nosort -o bashdefault -o default knock-agent
else
    complete -F _knock__agent -o bashdefault -o default knock-agent
fi
