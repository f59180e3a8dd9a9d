#!/bin/sh
# tests/validate_link.sh RATE COMMAND...: runs COMMAND as two MPI ranks in two network namespaces, with a link of RATE (as tc
# writes it, 200mbit) between them. Nothing outside the two namespaces is touched, and they end with this script.
# Exit status: that of mpirun; 77 where the host has no namespaces, no traffic control or no Open MPI, or the user may not
# (root is needed). SPDX-License-Identifier: Apache-2.0
set -u
rate=${1:?usage: validate_link.sh RATE COMMAND...}
shift
skip() { echo "validate_link.sh: $*" >&2; exit 77; }
for tool in unshare nsenter ip tc mpirun taskset; do command -v $tool > /dev/null 2>&1 || skip "no $tool here"; done
mpirun --version 2>&1 | grep -q 'Open MPI' || skip "mpirun is not Open MPI's"
dir=$(mktemp -d "${TMPDIR:-/tmp}/orrery-link-XXXXXX") || exit 5
p1='' p2=''
end() { # the namespaces go with their last process
    [ -n "$p1" ] && kill "$p1" 2> /dev/null
    [ -n "$p2" ] && kill "$p2" 2> /dev/null
    rm -rf "$dir"
}
trap end EXIT
trap 'exit 130' INT TERM
hold() { # NAME: a process that keeps a network and a host name of its own
    exec unshare --net --uts sh -c "hostname $1 && : > $dir/$1 && exec sleep 3600" 2> /dev/null
}
hold orrery1 & p1=$!
hold orrery2 & p2=$!
i=0
while [ ! -e "$dir/orrery1" ] || [ ! -e "$dir/orrery2" ]; do
    i=$((i + 1))
    if [ $i -gt 50 ] || ! kill -0 $p1 2> /dev/null; then skip "no network namespaces for this user"; fi
    sleep 0.1
done
ip link add eth0 netns $p1 type veth peer name eth0 netns $p2 2> /dev/null || skip "no veth pairs here"
# a burst of four packets: a larger one would pass after every pause at the speed of memory, which no wire does
for i in 1 2; do
    [ $i -eq 1 ] && p=$p1 || p=$p2
    in="nsenter -t $p -n"
    $in ip link set lo up && $in ip addr add 10.9.0.$i/24 dev eth0 && $in ip link set eth0 up || skip "cannot set up the link"
    $in tc qdisc add dev eth0 root tbf rate "$rate" burst 6400 latency 50ms 2> /dev/null || skip "no traffic control here"
done
# each rank takes itself for the only one of its host: they get halves of the processors
n=$(nproc)
[ "$n" -ge 2 ] || skip "one processor for two hosts"
cpu1=0-$((n / 2 - 1)) cpu2=$((n / 2))-$((n - 1))
cat > "$dir/rsh" << RSH
#!/bin/sh
h=\$1; shift
case \$h in orrery1) p=$p1 c=$cpu1 ;; *) p=$p2 c=$cpu2 ;; esac
exec taskset -c \$c nsenter -t \$p -n -u sh -c "\$*"
RSH
chmod +x "$dir/rsh"
root=''
[ "$(id -u)" -eq 0 ] && root=--allow-run-as-root
# shellcheck disable=SC2086
taskset -c "$cpu1" nsenter -t $p1 -n -u mpirun $root --oversubscribe --bind-to none --mca plm_rsh_agent "$dir/rsh" --mca plm_rsh_no_tree_spawn 1 \
    --mca oob_tcp_if_include 10.9.0.0/24 --mca btl self,tcp --mca pml ob1 --mca btl_tcp_if_include 10.9.0.0/24 \
    --host orrery1:1,orrery2:1 -n 2 "$@"
