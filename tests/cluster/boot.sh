#!/bin/bash
# The first process of a pretend machine (machines.py), in namespaces of its own: gives it a disk, a name, users and an
# sshd, says where it is, and stays. When its input ends, it does, and the kernel ends all other processes of the machine:
# so a test that is killed leaves nothing behind.
#
#   boot.sh NAME DISK KEPT...     KEPT: folders of this machine's that stay where they are, even under /tmp or /home
set -euo pipefail # a mount that fails must not leave the rest to the real disk
name=$1 disk=$2
shift 2

hostname "$name"
ip link set lo up

# First what is kept, then the folder above it together with that.
for private in tmp home; do
  for kept in "$@"; do
    if [[ $kept == /$private/* ]]; then
      mkdir -p "$disk$kept"
      mount --bind --options ro "$kept" "$disk$kept"
    fi
  done
done
mount --bind "$disk/etc/ssh" /etc/ssh
for file in hosts passwd; do mount --bind "$disk/etc/$file" /etc/$file; done
mount --rbind "$disk/home" /home
mount --rbind "$disk/tmp" /tmp
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -m 755 /run/sshd

/usr/sbin/sshd -E /run/sshd.log # returns when it listens
readlink /proc/self/ns/pid
while read -r _; do :; done # a builtin: only bash itself reaps the orphans of a machine
