#!/bin/sh
# Says of Slurm's job $1 whether it is running (or waits), success, or failed.
state=$(squeue --noheader --states=all --format=%T --jobs="$1" 2>&1)
case "$state" in
  COMPLETED) echo success ;;
  BOOT_FAIL | CANCELLED | DEADLINE | FAILED | NODE_FAIL | OUT_OF_MEMORY | PREEMPTED | REVOKED | TIMEOUT)
    echo failed ;; # one that was preempted and waits again is PENDING
  *"Invalid job id"*) echo failed ;; # no longer known: it runs again
  *) echo running ;; # or the controller does not answer now
esac
