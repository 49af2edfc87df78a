#!/usr/bin/env bash
# A one-node Slurm on localhost, from Debian's slurm-wlm and munge, for tries of hydra/launcher=pear_slurm.
#   sudo bash scripts/ci/slurm.sh          installs and starts it; `sinfo` then shows an idle node
#   pear run -m hydra/launcher=pear_slurm hydra.launcher.gpus_per_node=0 hydra.launcher.cpus_per_task=1 seed=0,1
# `scontrol requeue JOB` is what a preemption does to a job. The node has no GPUs.
set -euo pipefail

command -v slurmctld munged >/dev/null || {
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends slurm-wlm munge
}

host=$(hostname -s)
state=/var/lib/slurm-localhost
mkdir -p "$state" /etc/slurm /run/munge
cat >/etc/slurm/slurm.conf <<CONF
ClusterName=localhost
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
SlurmctldLogFile=$state/ctld.log
SlurmdLogFile=$state/d.log
SlurmctldPidFile=$state/ctld.pid
SlurmdPidFile=$state/d.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
JobRequeue=1
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF

[ -s /etc/munge/munge.key ] || mungekey --create
chown -R munge: /etc/munge /run/munge /var/lib/munge /var/log/munge
munge -n >/dev/null 2>&1 || runuser -u munge -- munged
mkdir -p "$state/ctld" "$state/d"
scontrol ping 2>/dev/null | grep -q UP || slurmctld
[ -s "$state/d.pid" ] && kill -0 "$(cat "$state/d.pid")" 2>/dev/null || slurmd

for _ in $(seq 60); do
    if sinfo --noheader --format=%t | grep -q idle; then
        sinfo
        exit 0
    fi
    sleep 1
done
echo "slurm.sh: no idle node after 60 s; see $state/ctld.log and $state/d.log" >&2
exit 1
