"""How good is a causal language model after its blocks were pruned and reconstructed one by one?"""
