"""How curved is the loss at a state, and how much could be pruned there at once? (Paul et al. 2023)"""
