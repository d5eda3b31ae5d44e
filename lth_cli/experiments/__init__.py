"""Programs made of the rooms below: training, iterative magnitude pruning, controls."""
