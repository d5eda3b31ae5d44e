"""Data sets as tensors or streams: loading, subsets, corruptions, augmentation, batches."""
