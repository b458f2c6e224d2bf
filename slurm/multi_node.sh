#!/usr/bin/env bash
# One run on the GPUs of several nodes, which share the folder of runs. Change the two lines marked so, then:
#   sbatch --nodes=4 slurm/multi_node.sh experiment=dcgan_cifar10
# More: docs/clusters.md
#SBATCH --partition=gpu                # change: your partition; an account is one more line, --account=NAME
#SBATCH --job-name=lightning_gen
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
set -euo pipefail

ENVIRONMENT=.venv                      # change: the environment that lightning_gen is installed in
. "$ENVIRONMENT/bin/activate"

export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
export OMP_NUM_THREADS="$SRUN_CPUS_PER_TASK"

# The processes meet at the first node. Its name must resolve on the others; else set MASTER_ADDR to an address of it.
# With more than one network between the nodes, NCCL_SOCKET_IFNAME names the fast one.
srun python train.py trainer=slurm resume=auto run_name="slurm-$SLURM_JOB_ID" "$@"
