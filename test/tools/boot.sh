#!/bin/sh
# The first process of a box: mounts what is its own, then becomes systemd, or waits where there is none.
# $1: a directory for both sides, whose name is that of the box's control group.
set -e
if [ "$2" != inside ]; then
  mount --make-rprivate /
  mount -t cgroup2 cgroup2 /mnt
  mkdir "/mnt/$(basename "$1")"
  echo 0 > "/mnt/$(basename "$1")/cgroup.procs"
  umount /mnt
  exec unshare --cgroup sh "$0" "$1" inside
fi
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /mnt
for dir in usr etc var; do
  mkdir -p "/mnt/$dir/upper" "/mnt/$dir/work"
  mount -t overlay overlay -o "lowerdir=/$dir,upperdir=/mnt/$dir/upper,workdir=/mnt/$dir/work" "/$dir"
done
mount -t tmpfs tmpfs /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
# No unit of the machine itself.
mount -t tmpfs tmpfs /etc/systemd/system 2>/dev/null || true
mkdir -p /run/systemd/system /run/lock
cat > /run/systemd/system/box.target <<UNIT
[Unit]
Description=A box
UNIT
cat > /run/systemd/system/demo.service <<UNIT
[Unit]
Description=Something to start
DefaultDependencies=no
[Service]
ExecStart=/bin/sleep 100000
UNIT
echo yes > "$1/booted"
if [ -x /lib/systemd/systemd ]; then
  export container=box
  exec /lib/systemd/systemd --unit=box.target --log-level=err --log-target=console --show-status=no
fi
rmdir /run/systemd/system || true
exec sleep infinity
