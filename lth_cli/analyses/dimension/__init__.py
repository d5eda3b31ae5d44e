"""How many dimensions do the training examples have, seen from their nearest neighbours?"""
