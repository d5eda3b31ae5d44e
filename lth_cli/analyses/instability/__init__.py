"""Do copies of a training that differ in SGD noise end in one linearly connected place, and from which step on?"""
