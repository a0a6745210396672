# shellcheck shell=bash
# Sourced by integration/demo and integration/test: gets a machine ready and builds the program.
#
#   root_dir              the top of the source tree
#   ensure_packages       installs what is missing, on Debian and Ubuntu; elsewhere says what is needed
#   ensure_test_packages  the same for all that the end-to-end tests start
#   ensure_rust           a Rust new enough for Cargo.toml, from rustup if need be
#   build                 cargo build; sets KNOCK_AGENT to the program's path

root_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# What `cargo build` and the program need: a compiler, pkg-config, the two netfilter libraries, libclang for bindgen.
build_packages=(build-essential pkg-config libmnl-dev libnftnl-dev libclang-dev ca-certificates curl)
# What the demo and the tests call: ip and nft.
run_packages=(iproute2 nftables iptables ipset)

say() { printf '== %s\n' "$*" >&2; }
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Runs a command as root: directly, or by sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        fail "this needs root and there is no sudo; as root, run: $*"
    fi
}

# True if the Debian package is installed and configured.
has_package() {
    local status
    status=$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) && [ "$status" = installed ]
}

# ensure_packages [PACKAGE...]: the lists above and any more that are named.
ensure_packages() {
    local package missing=()
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        say "not Debian or Ubuntu: nothing is installed; what these packages hold must be there:" \
            "${build_packages[*]} ${run_packages[*]} $*"
        return 0
    fi
    for package in "${build_packages[@]}" "${run_packages[@]}" "$@"; do
        has_package "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    say "installing ${missing[*]}"
    # Old package lists name files that the mirror has dropped, so a first failure is followed by an update.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2 ||
        {
            as_root apt-get update >&2 &&
                as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2
        } || fail "could not install ${missing[*]}"
}

# ensure_servers PACKAGE...: the same for packages of servers, of which only the programs are wanted: they are neither started
# nor enabled. On systems that are not Debian or Ubuntu it only says what is needed.
ensure_servers() {
    local package missing=() policy=/usr/sbin/policy-rc.d made='' status=0
    if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
        for package in "$@"; do
            has_package "$package" || missing+=("$package")
        done
        [ ${#missing[@]} -eq 0 ] && return 0
        if [ ! -e "$policy" ]; then
            made=yes
            # shellcheck disable=SC2016 # for the other shell
            as_root sh -c 'printf "#!/bin/sh\nexit 101\n" >"$1" && chmod 0755 "$1"' sh "$policy"
        fi
    fi
    (ensure_packages "$@") || status=$?
    [ -z "$made" ] || as_root rm -f "$policy"
    [ "$status" -eq 0 ] || exit "$status"
    if [ ${#missing[@]} -gt 0 ] && [ -d /run/systemd/system ]; then
        as_root systemctl disable --quiet "${missing[@]}" || true
    fi
}

# ensure_test_packages: whatever the end-to-end tests start.
ensure_test_packages() {
    local service mask
    ensure_servers nginx haproxy caddy knockd prometheus
    # Installed, these would change this machine's firewall; the tests start them in namespaces of their own only. Masked,
    # they can be started by nobody else.
    for service in firewalld fail2ban; do
        mask=/etc/systemd/system/$service.service
        if command -v dpkg-query >/dev/null && ! has_package "$service" && [ ! -e "$mask" ] && [ -d "${mask%/*}" ]; then
            say "masking $service.service before it is installed (systemctl unmask $service undoes it)"
            as_root ln -s /dev/null "$mask"
        fi
    done
    ensure_packages curl nmap tcpdump conntrack openssl python3 python3-requests netcat-openbsd procps strace sudo util-linux \
        iptables ipset ufw firewalld fail2ban dbus iputils-ping dash oathtool zbar-tools openssh-client openssh-server \
        python3-aiosmtpd python3-scapy python3-jsonschema whois pass gnupg hping3 systemd systemd-journal-remote coreutils binutils gcc zsh fish man-db mandoc busybox-static
    # What the recipes of the documentation hide.
    ensure_servers openvpn
    ensure_packages wireguard-tools wireguard-go
}

# True if the first version is at least the second.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

rust_version() { rustc --version 2>/dev/null | awk '{print $2}'; }

ensure_rust() {
    local wanted have
    wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$root_dir/Cargo.toml")
    # rustup's directory is often missing from the PATH of sudo and of scripts.
    [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
    have=$(rust_version)
    if [ -n "$have" ] && command -v cargo >/dev/null && at_least "$have" "$wanted"; then
        return 0
    fi
    if command -v rustup >/dev/null; then
        say "Rust ${have:-is missing}, $wanted is needed: updating with rustup"
        rustup toolchain install stable --profile minimal >&2 || fail "rustup could not install Rust"
        export RUSTUP_TOOLCHAIN=stable
    else
        say "Rust ${have:-is missing}, $wanted is needed: installing it with rustup into $HOME/.cargo"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -y --profile minimal --no-modify-path >&2 || fail "rustup could not be installed"
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    have=$(rust_version)
    if [ -z "$have" ] || ! at_least "$have" "$wanted"; then
        fail "Rust $wanted is needed, there is ${have:-none}"
    fi
}

# build [PROFILE]: release unless named otherwise (`dev` builds faster and runs slower).
build() {
    local profile=${1:-release} folder=${1:-release}
    [ "$profile" = dev ] && folder=debug
    say "building ($profile)"
    (cd "$root_dir" && cargo build --locked --profile "$profile") || fail "the build failed"
    # shellcheck disable=SC2034 # for those who source this file
    KNOCK_AGENT="${CARGO_TARGET_DIR:-$root_dir/target}/$folder/knock-agent"
}
