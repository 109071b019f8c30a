#!/bin/sh
# Says of Slurm's job $1 whether it is running (or waits), success, or failed.
state=$(squeue --noheader --states=all --format=%T --jobs="$1" 2>&1)
case "$state" in
  COMPLETED) echo success ;;
  BOOT_FAIL | CANCELLED | DEADLINE | FAILED | NODE_FAIL | OUT_OF_MEMORY | TIMEOUT) echo failed ;;
  *"Invalid job id"*) echo failed ;; # no longer known: what it was to write is looked for
  *) echo running ;; # or the controller does not answer now
esac
