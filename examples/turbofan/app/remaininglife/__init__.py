"""Cycles that a turbofan engine has left, from its sensors: an ordinary Flower app."""
