"""The Linen modules of REALM and the objective they are trained with."""
