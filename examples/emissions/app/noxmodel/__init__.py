"""Nitrogen oxides of gas turbines from their operating data: one kernel regression, as an ordinary Flower app."""
