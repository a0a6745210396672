#!/bin/sh
# Knocks with curl and openssl, for hosts without knock-agent. POSIX sh.
#
#   knock.sh FILE [open|close]
#
# FILE is yours, mode 0600, and has lines NAME=VALUE without quotes:
#   host=gate.example.com          http_port=80    https_port=443
#   http_path=/...                 https_path=/...
#   app=ssh
#   key_http=/path/of/a/file       key_https=/path/of/a/file     (each file: the key, mode 0600)
#   user=alice                     then step 1 sends a proof instead of the key
#   address=203.0.113.7            as the gateway sees you; without it the proof is good from anywhere, once
#   ca=/path/of/cert.pem           or pin=sha256//... of the public key; otherwise the system's authorities
#   path_secret=/path/of/a/file    where the path of step 1 changes with time: http_path is its beginning
#   path_every=300                 how often, in seconds
#   duration=2h                    family=4 or 6
#   code=https                     ask for a one-time code: at step http or https
# The code comes from standard input, one line.
#
# No key, code or path is on a command line: curl reads them from its standard input, openssl and od as well.
# Ends with 0 when it is open, 2 for wrong usage, 11 when step 2 stayed closed, 13 when it refused, 14 when it wants a code.
set -u
umask 077

fail() {
    code=$1
    shift
    printf 'knock.sh: %s\n' "$*" >&2
    exit "$code"
}

[ $# -ge 1 ] && [ $# -le 2 ] || fail 2 'usage: knock.sh FILE [open|close]'
action=${2:-open}
case $action in open | close) ;; *) fail 2 'usage: knock.sh FILE [open|close]' ;; esac
[ -r "$1" ] || fail 2 "cannot read $1"

host='' http_port=80 https_port=443 http_path='' https_path='' app='' key_http='' key_https=''
path_secret='' path_every=300 user='' address='-' ca='' pin='' duration='' family='' code=''
# `IFS='=' read -r name value` would lose a `=` at the end of the value, and each pin ends with one.
while IFS= read -r line || [ -n "$line" ]; do
    name=${line%%=*}
    value=${line#"$name"}
    value=${value#=}
    case $name in
        '' | '#'*) ;;
        host) host=$value ;;
        http_port) http_port=$value ;;
        https_port) https_port=$value ;;
        http_path) http_path=$value ;;
        https_path) https_path=$value ;;
        app) app=$value ;;
        key_http) key_http=$value ;;
        key_https) key_https=$value ;;
        path_secret) path_secret=$value ;;
        path_every) path_every=$value ;;
        user) user=$value ;;
        address) address=$value ;;
        ca) ca=$value ;;
        pin) pin=$value ;;
        duration) duration=$value ;;
        family) family=$value ;;
        code) code=$value ;;
        *) fail 2 "$1: there is no such name: $name" ;;
    esac
done <"$1"
for needed in "$host" "$http_path" "$https_path" "$app" "$key_http" "$key_https"; do
    [ -n "$needed" ] || fail 2 "$1: host, http_path, https_path, app, key_http and key_https are needed"
done

# The value on standard input, percent-encoded; a newline at its end is not part of it.
encoded() {
    od -An -v -tx1 | tr -d ' \n' | sed 's/0a$//; s/../%&/g'
}

# The bytes of standard input as decimal numbers, without a newline at their end.
numbers() {
    od -An -v -tx1 | tr -d ' \n' | sed 's/0a$//; s/../0x& /g'
}

# padded BYTE NUMBER...: 64 bytes, each xored with BYTE.
padded() {
    pad=$1
    shift
    count=0
    while [ $count -lt 64 ]; do
        byte=${1:-0}
        [ $# -gt 0 ] && shift
        # printf of the shell itself: no other process sees it.
        # shellcheck disable=SC2059 # the format is the byte
        printf "\\$(printf '%03o' $((byte ^ pad)))"
        count=$((count + 1))
    done
}

# hmac NUMBERS: HMAC-SHA-256 (RFC 2104) of standard input under the key of these bytes, in hexadecimal.
# `openssl dgst -hmac` and `-macopt` take the key as an argument, which everybody on the host can read.
hmac() {
    inner=$({
        # shellcheck disable=SC2086 # one word for each byte
        padded 0x36 $1
        cat
    } | openssl dgst -sha256 -binary | numbers_all)
    {
        # shellcheck disable=SC2086
        padded 0x5c $1
        for byte in $inner; do
            # shellcheck disable=SC2059
            printf "\\$(printf '%03o' "$byte")"
        done
    } | openssl dgst -sha256 -binary | od -An -v -tx1 | tr -d ' \n'
}

numbers_all() { od -An -v -tx1 | tr -d ' \n' | sed 's/../0x& /g'; }

# key_of FILE: the numbers of the key in it, as HMAC takes them.
key_of() {
    file=$1
    key=$(numbers <"$file")
    # shellcheck disable=SC2086
    set -- $key
    if [ $# -gt 64 ]; then
        key=$(tr -d '\n' <"$file" | openssl dgst -sha256 -binary | numbers_all)
    fi
    printf '%s' "$key"
}

# token_of_path: what the path of step 1 ends with now.
token_of_path() {
    printf 'knock-agent path 1\n%s' $(($(date +%s) / path_every)) | hmac "$(key_of "$path_secret")" | cut -c1-32
}

# proof: of the key of step 1, for now, this app, user and address.
proof() {
    key=$(key_of "$key_http")
    verifier=$(printf 'knock-agent key 1' | hmac "$key" | sed 's/../0x& /g')
    nonce=$(od -An -N16 -v -tx1 /dev/urandom | tr -d ' \n')
    step=$(($(date +%s) / 30))
    printf '%s.' "$nonce"
    printf 'knock-agent proof 1\n%s\n%s\n%s\n%s\n%s' "$app" "$user" "$address" "$step" "$nonce" | hmac "$verifier"
}

token=''
if [ -n "$code" ]; then
    [ -t 0 ] && printf 'one-time code: ' >&2
    IFS= read -r token || [ -n "$token" ] || fail 14 'no code on standard input'
fi

app_field=$(printf '%s' "$app" | encoded)
form1="app=$app_field"
form2="app=$app_field&access_key=$(encoded <"$key_https")"
if [ -n "$user" ]; then
    user_field=$(printf '%s' "$user" | encoded)
    form1="$form1&user=$user_field&proof=$(proof)"
    form2="$form2&user=$user_field"
else
    form1="$form1&access_key=$(encoded <"$key_http")"
fi
case $code in
    http) form1="$form1&token=$token" ;;
    https) form2="$form2&token=$token" ;;
esac
[ -n "$duration" ] && [ "$action" = open ] && form2="$form2&duration=$duration"
[ "$action" = close ] && form2="$form2&action=close"

[ -n "$path_secret" ] && http_path="$http_path/$(token_of_path)"

case $host in *:*) host="[$host]" ;; esac

# settings URL FORM: curl's, for its standard input. The fields are percent-encoded, so nothing needs quoting. A proxy
# would be let in, not we.
settings() {
    printf 'url = "%s"\ndata = "%s"\ngloboff\nsilent\nnoproxy = "*"\n' "$1" "$2"
    [ -n "$family" ] && printf 'ipv%s\n' "$family"
    return 0
}

# Step 1 is never answered; one second is for the network, not for the gateway.
settings "http://$host:$http_port$http_path" "$form1" | curl -q -m 1 -K - >/dev/null 2>&1

# Step 2 opens a moment later; a SYN that came too early is sent again after a second.
tries=0
while :; do
    status=$({
        settings "https://$host:$https_port$https_path" "$form2"
        [ -n "$ca" ] && printf 'cacert = "%s"\n' "$ca"
        # The pin says who it is; the name and the issuer need not be known then.
        [ -n "$pin" ] && printf 'insecure\npinnedpubkey = "%s"\n' "$pin"
        # shellcheck disable=SC1083 # curl's own braces
        printf 'write-out = "%%{http_code}"\noutput = "/dev/null"\nconnect-timeout = 2\nmax-time = 8\n'
    } | curl -q -K -)
    result=$?
    # Not reached: 7 refused, 28 too late.
    { [ $result -eq 7 ] || [ $result -eq 28 ]; } && [ "$status" = 000 ] || break
    tries=$((tries + 1))
    [ $tries -lt 3 ] || break
done
case $result:$status in
    0:200) exit 0 ;;
    0:401) fail 14 'step 2 wants a one-time code: write code=https' ;;
    0:403) fail 13 'step 2 refused the app, key or code' ;;
    0:*) fail 16 "step 2 answered with $status" ;;
    60:* | 90:* | 51:*) fail 12 'the certificate of step 2 is not trusted' ;;
    *) fail 11 'step 2 did not open: step 1 was not accepted, or is filtered' ;;
esac
