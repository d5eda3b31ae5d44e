"""Run directories and the shared store: whole files or none, checksums, locks, reuse of trained states."""
