#!/usr/bin/env bash
# One trial for each line of `trials`, each on one GPU, four at a time. Change the two lines marked so and the trials, then:
#   sbatch slurm/array_sweep.sh experiment=dcgan_cifar10
# More: docs/clusters.md
#SBATCH --partition=gpu                # change: your partition; an account is one more line, --account=NAME
#SBATCH --job-name=lightning_gen
#SBATCH --array=0-5%4
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%A_%a.out
set -euo pipefail

ENVIRONMENT=.venv                      # change: the environment that lightning_gen is installed in
. "$ENVIRONMENT/bin/activate"

export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
export OMP_NUM_THREADS="$SRUN_CPUS_PER_TASK"

trials=(
  "seed=0 model.generator_optimizer.lr=1e-4"
  "seed=1 model.generator_optimizer.lr=1e-4"
  "seed=2 model.generator_optimizer.lr=1e-4"
  "seed=0 model.generator_optimizer.lr=2e-4"
  "seed=1 model.generator_optimizer.lr=2e-4"
  "seed=2 model.generator_optimizer.lr=2e-4"
)
read -ra trial <<<"${trials[$SLURM_ARRAY_TASK_ID]}"
job="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"

# The job's number names the run, so that the job finds it again: told to stop, it writes a checkpoint and queues itself
# again.
srun python train.py trainer=slurm resume=auto run_name="slurm-$job" "${trial[@]}" "$@"
