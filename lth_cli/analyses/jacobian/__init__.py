"""How much does a network stretch its inputs? Singular values of its Jacobian (Lee et al. 2020)."""
