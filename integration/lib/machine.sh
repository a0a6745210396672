# shellcheck shell=bash
# Sourced after setup.sh: a virtual machine with another kernel and this host's files beneath a layer of memory. Nothing
# of the host is written, its network and its firewall are not there. Without KVM it is emulated, which is slow.
#
#   machine_kernel VERSION   unpacks Debian's newest kernel of that version; sets image and release
#   machine_boot WORD...     boots it, with more words for guest-init; returns what the guest ended with
#
#   KERNEL_DEB=FILE   a package linux-image-*.deb to boot instead

# Installed by whoever sources this.
# shellcheck disable=SC2034
machine_packages=(qemu-system-x86 busybox-static cpio kmod xz-utils)
machine_folder=$(mktemp -d)
# Set by those who have the guest see more files.
copies=
trap 'rm -rf "$machine_folder" "${copies:-}"' EXIT

machine_kernel() {
    local version=$1 folder name package=${KERNEL_DEB:-}
    folder=${CARGO_TARGET_DIR:-$root_dir/target}/kernel-$version
    mkdir -p "$folder"
    # The guest has this host's files, but a /tmp and a /run of its own.
    case $(realpath "$folder") in
    /tmp/* | /run/*) fail "a virtual machine does not see this host's /tmp and /run: use a clone elsewhere" ;;
    esac
    if [ -z "$package" ]; then
        name=$(apt-cache search --names-only "^linux-image-${version//./\\.}\\.[.0-9+a-z-]*-amd64\$" |
            awk '$1 !~ /(cloud|rt|unsigned|dbg)/ {print $1}' | sort -V | tail -n 1)
        [ -n "$name" ] || fail "apt knows no linux-image-$version*-amd64: give KERNEL_DEB=FILE"
        package=$(find "$folder" -maxdepth 1 -name "${name}_*.deb" | head -n 1)
        if [ -z "$package" ]; then
            say "downloading $name"
            (cd "$folder" && apt-get download "$name" >&2) || fail "cannot download $name"
            package=$(find "$folder" -maxdepth 1 -name "${name}_*.deb" | head -n 1)
        fi
    fi
    image=$folder/${package##*/}.d
    if [ ! -e "$image/ready" ]; then
        say "unpacking ${package##*/}"
        rm -rf "$image"
        mkdir -p "$image"
        dpkg-deb -x "$package" "$image"
        /sbin/depmod -b "$image" "$(basename "$(echo "$image"/lib/modules/*)")"
        touch "$image/ready"
    fi
    release=$(basename "$(echo "$image"/lib/modules/*)")
}

machine_initrd() {
    local initrd=$machine_folder/initrd module word file
    mkdir -p "$initrd"/{bin,proc,sys,dev,host,memory,root,modules}
    cp /bin/busybox "$initrd/bin/busybox"
    # What the host's files take to appear, with what that depends on, in that order.
    : > "$initrd/modules/order"
    for module in virtio_pci 9pnet_virtio 9p overlay; do
        while read -r word file _; do
            [ "$word" = insmod ] || continue
            module=${file##*/}
            module=${module%.xz}
            [ ! -e "$initrd/modules/$module" ] || continue
            case $file in
                *.xz) xz -dc "$file" > "$initrd/modules/$module" ;;
                *) cp "$file" "$initrd/modules/$module" ;;
            esac
            echo "$module" >> "$initrd/modules/order"
        done < <(/sbin/modprobe -d "$image" -S "$release" --show-depends "$module")
    done
    cp "$root_dir/integration/lib/guest-init" "$initrd/init"
    chmod 755 "$initrd/init"
    (cd "$initrd" && find . | cpio -o -H newc --quiet | gzip -1) > "$machine_folder/initrd.gz"
}

machine_boot() {
    local accelerator=tcg,thread=multi processor=max status
    # A device file alone is no proof: a machine that is itself virtual may have one that runs nothing.
    if [ -e /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then
        accelerator=kvm
        processor=host
    fi
    machine_initrd
    say "booting Linux $release ($accelerator)"
    as_root qemu-system-x86_64 -accel "$accelerator" -cpu "$processor" -smp 2 -m 2048 -nographic -no-reboot -nic none \
        -kernel "$image/boot/vmlinuz-$release" -initrd "$machine_folder/initrd.gz" \
        -fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap \
        -device virtio-9p-pci,fsdev=host,mount_tag=host \
        -append "console=ttyS0 quiet panic=-1 ka.modules=$image $*" \
        </dev/null | tee "$machine_folder/log"
    status=$(tr -d '\r' < "$machine_folder/log" | sed -n 's/.*== guest ended with \([0-9]*\)$/\1/p' | head -n 1)
    [ -n "$status" ] || fail "the guest did not come to its end"
    return "$status"
}
