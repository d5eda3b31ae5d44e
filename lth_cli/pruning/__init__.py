"""Masks and how they shrink: score x allocation x schedule, over the prunable tensors of a model."""
