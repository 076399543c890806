#!/bin/sh
# Runs as the first process of a new mount namespace: builds the environment's root in it, then waits until its standard input ends.
# Others join by nsenter. Every mount ends with the namespace, so nothing is left behind however this process ends.
# usage: enter.sh ROOT BASE TMP HOSTS [TARGET=SOURCE ...]
#   ROOT    an empty folder, to become /
#   BASE    a prepared root to take everything else from, or an empty word: then this machine's own folders are used
#   TARGET  var/task, var/runtime, opt or a folder below tmp, with the folder to show there, read-only
set -eu
PATH=$PATH:/usr/sbin:/sbin

root=$1 base=$2 tmp=$3 hosts=$4
shift 4

mount -t tmpfs -o mode=755 tmpfs "$root"
if [ -n "$base" ]; then source=$base; else source=; fi
for entry in "$source"/*; do
    name=${entry##*/}
    case $name in
        opt | var | tmp | proc | sys | dev | etc) ;;
        *)
            if [ -L "$entry" ]; then
                ln -s "$(readlink "$entry")" "$root/$name"
            elif [ -d "$entry" ]; then
                mkdir "$root/$name"
                mount --rbind "$entry" "$root/$name"
            fi
            ;;
    esac
done
mkdir -p "$root/opt" "$root/var/task" "$root/var/runtime" "$root/tmp" "$root/proc" "$root/dev" "$root/etc"
if [ -d "$source/var/lang" ]; then
    mkdir "$root/var/lang"
    mount --rbind "$source/var/lang" "$root/var/lang"
fi
mount --rbind "$source/etc" "$root/etc"
# A base root need not have the file to mount over.
[ ! -f "$root/etc/hosts" ] || mount --bind "$hosts" "$root/etc/hosts"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount --bind "$tmp" "$root/tmp"
for pair in "$@"; do
    target=$root/${pair%%=*}
    mkdir -p "$target"
    mount --bind "${pair#*=}" "$target"
    mount -o remount,bind,ro "$target" 2>/dev/null || true
done

cd /
echo ready
# The end of standard input is the end of the sandbox.
read -r _ || true
