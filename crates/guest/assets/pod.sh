#!/bin/sh
# What a container runtime does for a launcher pod, with nothing but util-linux and iproute2: called as root in fresh
# mount, network, IPC, UTS and process namespaces, it assembles the root file system of one release, drops to the
# launcher's user without any capability, and becomes the given program. Nothing outside the namespaces changes.
#
# usage: pod.sh ROOTFS PRIVATE SHARED PROGRAM_DIR UID PROGRAM ARGUMENTS...
#   ROOTFS       the release's file system, never written to
#   PRIVATE      becomes /run/private: sockets, logs, disks of this pod
#   SHARED       becomes /run/shared: what both ends of a migration see
#   PROGRAM_DIR  becomes /opt/launcher, read-only
set -eu
rootfs=$1 private=$2 shared=$3 programs=$4 uid=$5
shift 5

mount --make-rprivate /
layers=$private/layers
mkdir -p "$layers"
mount -t tmpfs -o mode=755 tmpfs "$layers"
mkdir "$layers/upper" "$layers/work" "$layers/root"
root=$layers/root
mount -t overlay -o "lowerdir=$rootfs,upperdir=$layers/upper,workdir=$layers/work" overlay "$root"

mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/net" "$root/run/private" "$root/run/shared"
mkdir -p "$root/opt/launcher"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    path=$root/dev/${node%%:*}
    numbers=${node#*:}
    mknod -m 666 "$path" c "${numbers%:*}" "${numbers#*:}"
done
mknod -m 600 "$root/dev/net/tun" c 10 200
chown "$uid:$uid" "$root/dev/net/tun"
if [ -c /dev/kvm ]; then
    mknod -m 600 "$root/dev/kvm" c 10 232
    chown "$uid:$uid" "$root/dev/kvm"
fi
mount --bind "$private" "$root/run/private"
mount --bind "$shared" "$root/run/shared"
mount --bind "$programs" "$root/opt/launcher"
mount -o remount,bind,ro "$root/opt/launcher"

# The pod's network: the runtime moves eth0 in from outside; the tap is the guest's plug, made here because the launcher
# itself may not.
ip link set lo up
ip tuntap add dev tap0 mode tap user "$uid" group "$uid"
ip link add br0 type bridge forward_delay 0
ip link set tap0 master br0 up
ip link set br0 up

exec chroot "$root" /usr/bin/setpriv --reuid "$uid" --regid "$uid" --clear-groups --no-new-privs \
    --bounding-set=-all --inh-caps=-all "$@"
