export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
groups=/sys/fs/cgroup/system.slice
echo "+memory +pids +cpu" >/sys/fs/cgroup/cgroup.subtree_control
mkdir $groups
echo "+memory +pids +cpu" >$groups/cgroup.subtree_control
echo "INSIDE kernel $(uname -r)"
for who in 0 65534; do
    own=$groups/keyong-$who.service
    mkdir "$own" "/tmp/home-$who"
    chown $who "$own" "$own/cgroup.procs" "$own/cgroup.subtree_control" "$own/cgroup.threads" "/tmp/home-$who"
    (
        cd TREE || exit 1
        HOME=/tmp/home-$who && export HOME
        echo 0 >"$own/cgroup.procs"
        exec setpriv --reuid $who --regid $who --clear-groups env PYTHONDONTWRITEBYTECODE=1 \
            .venv/bin/python -m pytest -p no:cacheprovider -n0 -rs --tb=short --color=no --timeout 900 FILES 2>&1
    ) | sed "s/^/INSIDE $who /"
done
echo "INSIDE end"
echo o >/proc/sysrq-trigger
while :; do :; done
