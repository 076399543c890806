#!/bin/sh
# Runs inside a new mount namespace: mounts what one execution environment sees onto a base root, then becomes the emulator there.
# usage: enter.sh BASE CGROUP GRACE [MOUNT ...] -- COMMAND [ARG ...]
#   CGROUP  a file that takes a process id, or an empty word
#   GRACE   0, or for how many seconds the other processes may go on after COMMAND has ended
#   MOUNT   bind:SOURCE:TARGET | rbind:SOURCE:TARGET | ro:SOURCE:TARGET | tmpfs:OPTIONS:TARGET   (targets exist in the base root)
# Every mount ends with the namespace, so nothing is left behind however this process ends.
set -eu

base=$1 cgroup=$2 grace=$3
shift 3
function_path=$PATH
PATH=$PATH:/usr/sbin:/sbin

[ -z "$cgroup" ] || echo 0 >"$cgroup"

mount --bind "$base" "$base"
while [ "$1" != -- ]; do
    kind=${1%%:*}
    rest=${1#*:}
    source=${rest%%:*}
    target=$base${rest#*:}
    case $kind in
        bind) mount --bind "$source" "$target" ;;
        rbind) mount --rbind "$source" "$target" ;;
        ro)
            mount --bind "$source" "$target"
            mount -o remount,bind,ro "$target"
            ;;
        tmpfs) mount -t tmpfs -o "$source,mode=1777" tmpfs "$target" ;;
    esac
    shift
done
shift

mount --rbind /dev "$base/dev"
# A fresh /proc shows this process namespace only. Inside some containers it may not be mounted: then the outer one has to do.
mount -t proc proc "$base/proc" 2>/dev/null || mount --rbind /proc "$base/proc"
# As on AWS, only /tmp can be written to.
mount -o remount,bind,ro "$base" 2>/dev/null || echo "enter.sh: the root stays writable" >&2

chroot=$(command -v chroot)
PATH=$function_path
export PATH
cd /
[ "$grace" != 0 ] || exec "$chroot" "$base" "$@"

# Lambda gives extensions two seconds after the runtime's end; this emulator ends within milliseconds, and the namespace with it.
others_run() {
    for stat in "$base"/proc/[0-9]*/stat; do
        read -r pid _ state _ 2>/dev/null <"$stat" || continue
        [ "$pid" = 1 ] || [ "$state" = Z ] || return 0
    done
    return 1
}

"$chroot" "$base" "$@" &
status=0
wait $! || status=$?
tenths=$((grace * 10))
while [ "$tenths" -gt 0 ] && others_run; do
    PATH=$PATH:/usr/bin:/bin sleep 0.1
    tenths=$((tenths - 1))
done
exit "$status"
