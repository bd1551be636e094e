#!/bin/bash
# A contrail command on Slurm: Ray is started on all nodes of the job, the command on the first; both end with the job.
#
#   ray get-auth-token --generate > /dev/null && chmod 600 ~/.ray/auth_token       once, on the login node
#   contrail doctor ray_configs/slurm.sh
#   sbatch ray_configs/slurm.sh train ppo --topology.address auto --run.folder ~/runs
#   sbatch ray_configs/slurm.sh resume ~/runs/NAME      a run that the job's end cut off: from its last checkpoint
#
# Home and the virtual environment (CONTRAIL_ENV, by default ~/contrail-env) must be those of all nodes, as they are
# where home is on a shared file system.
#
# Run as far as that goes without Slurm: with an srun and a scontrol that stand in for one machine.

#SBATCH --job-name=contrail
# More when runs use more: today a run stays on the first node (README.md here).
#SBATCH --nodes=1
# One Ray a node, and nobody else's: two would take each other's ports.
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --cpus-per-task=16
# With GPUs: #SBATCH --gpus-per-task=1
#SBATCH --time=04:00:00

set -euo pipefail

export PATH="${CONTRAIL_ENV:-$HOME/contrail-env}/bin:$PATH"
# Whoever reaches Ray's ports without a token can run anything, and others share the network of a Slurm cluster.
export RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED=0
# Nodes may come up minutes apart; Ray's own patience is 30 s.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
# srun does not take it from the job since Slurm 22.05, and would give Ray one core.
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | awk 'NR == 1')
# The first address that others can reach: a node may have several, and on Debian 127.0.1.1 for its own name.
head_address=$(srun --nodes=1 --ntasks=1 -w "$head_node" bash -c 'hostname --ip-address; hostname --all-ip-addresses' |
  tr ' ' '\n' | awk '/\./ && !/^127\./ && !found++')

srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
  ray symmetric-run --address "$head_address:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_PER_TASK:-0}" --dashboard-host=127.0.0.1 \
  -- contrail "$@"
