"""Residual terms and robust weights: the energy that fitting minimises."""
