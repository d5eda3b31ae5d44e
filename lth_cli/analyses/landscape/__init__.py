"""What does the loss look like between trained states? On a plane of weights, at every point of a grid."""
