"""How far do trainings that differ by seed agree, example by example? (Cooper et al. 2022, arXiv:2206.11834)"""
