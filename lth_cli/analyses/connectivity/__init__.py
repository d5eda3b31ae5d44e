"""Are states linearly mode connected? (Frankle et al. 2020, arXiv:1912.05671, section 2)"""
