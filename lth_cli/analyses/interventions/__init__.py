"""How much does a concept bottleneck gain from being told concepts, by the order in which it is told?"""
