"""Are the ends of successive rounds linearly connected, and is that so where rounds match the dense network?"""
