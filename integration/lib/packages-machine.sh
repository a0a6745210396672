# shellcheck shell=bash disable=SC2154
# Sourced by integration/packages: a clean Debian that systemd has booted in namespaces of its own, and a wire to it; and by
# integration/booted-pages, which boots such a Debian by itself.
#
#   machine_root     makes the Debian with what `contents` names below the folder `roots`; sets base
#   machine_folder   sets machine, a folder in memory for what is tried
#   machine_boot     boots it; its root is a layer in memory over target/packages-root
#   inside WORD...   runs a command there
#   outer, client, stranger   the other end of the wire, and the two addresses there

suite=bookworm
# libmnl0 and libnftnl11 come with nftables; rpm is for trying the rpm, openssl and curl for the commands of the page.
contents=systemd,systemd-sysv,libpam-systemd,dbus,nftables,iproute2,openssl,curl,ca-certificates,rpm,procps
roots=$root_dir/target/packages-root
inner=ka-packages-$$-in
outer=ka-packages-$$-out
client=192.0.2.10
stranger=192.0.2.11
machine='' booted='' leader='' server=''

machine_folder() {
    machine=$(mktemp -d /run/ka-packages.XXXXXX)
    trap machine_end EXIT
    mount -t tmpfs -o mode=0755 ka-packages "$machine"
    mkdir "$machine"/{upper,work,root}
}

machine_end() {
    set +e
    [ -z "$server" ] || kill "$server"
    if [ -n "$leader" ]; then
        # To systemd it is `halt`, by a signal that it takes from outside.
        kill -s RTMIN+3 "$leader"
        for _ in $(seq 100); do kill -0 "$booted" 2>/dev/null || break; sleep 0.1; done
    fi
    [ -z "$booted" ] || kill "$booted" 2>/dev/null
    wait 2>/dev/null
    ip netns del "$inner" 2>/dev/null
    ip netns del "$outer" 2>/dev/null
    umount -l "$machine/root" 2>/dev/null
    umount -l "$machine" && rmdir "$machine"
}

# A root that was made once is used again.
machine_root() {
    local folder=$roots mirror
    base=$folder/$suite-$(sha256sum <<<"$contents" | head -c 12)
    if [ -e "$base.ready" ]; then return 0; fi
    mirror=$(sed -n 's/^URIs: *\([^ ]*debian\)\/* *$/\1/p; s/^deb \(\[.*\] \)*\([^ ]*debian\)\/* .*/\2/p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1 || true)
    say "making a clean Debian $suite from ${mirror:=http://deb.debian.org/debian}"
    rm -rf "$folder"
    mkdir -p "$folder"
    debootstrap --variant=minbase --include="$contents" "$suite" "$base" "$mirror" >"$folder/log" 2>&1 ||
        { tail -n 5 "$folder/log" >&2; fail "there is no clean Debian to try packages in"; }
    rm -rf "$base"/var/cache/apt/archives/*.deb "$base"/var/lib/apt/lists/*
    touch "$base.ready"
}

# The wire, and a service at its end that answers `hello`.
machine_wire() {
    ip netns add "$inner"
    ip netns add "$outer"
    ip -n "$inner" link add eth0 type veth peer name eth0 netns "$outer"
    ip -n "$inner" link set lo up
    ip -n "$inner" addr add 192.0.2.1/24 dev eth0
    ip -n "$inner" link set eth0 up
    ip -n "$inner" route add default via "$client"
    ip -n "$outer" addr add "$client/24" dev eth0
    ip -n "$outer" addr add "$stranger/24" dev eth0
    ip -n "$outer" link set eth0 up
    ip netns exec "$inner" python3 -c '
import socketserver
class Hello(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"hello")
socketserver.ThreadingTCPServer.request_queue_size = 128
socketserver.ThreadingTCPServer(("", 22), Hello).serve_forever()' &
    server=$!
}

machine_boot() {
    local root=$machine/root one
    machine_root
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$machine/upper,workdir=$machine/work" "$root"
    machine_wire
    mkdir "$root/root/packages"
    # Nobody is there to be asked.
    echo 'APT::Get::Assume-Yes "true";' >"$root/etc/apt/apt.conf.d/90yes"
    say "booting it"
    systemd-nspawn --quiet --directory="$root" --machine=ka-packages --register=no --keep-unit --link-journal=no \
        --network-namespace-path="/run/netns/$inner" --capability=CAP_NET_ADMIN \
        --bind-ro="$packages:/root/given" --boot --console=read-only \
        </dev/null >"$machine/console" 2>&1 &
    booted=$!
    for _ in $(seq 300); do
        for one in $(pgrep -P "$booted"); do
            if grep -qE '^NSpid:.*[[:space:]]1$' "/proc/$one/status"; then leader=$one; fi
        done
        case $([ -z "$leader" ] || inside systemctl is-system-running 2>/dev/null) in
            running | degraded)
                inside find /root/given -maxdepth 1 -type f -exec cp {} /root/packages/ ';'
                return 0
                ;;
        esac
        kill -0 "$booted" 2>/dev/null || break
        sleep 0.2
    done
    cat "$machine/console" >&2
    fail "the clean Debian did not boot"
}

inside() {
    nsenter --target "$leader" --mount --uts --ipc --net --pid --cgroup --root --wd -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none "$@"
}
