"""How smooth is the loss along the path of training? Lipschitz constant of its gradient (Lee et al. 2021)."""
