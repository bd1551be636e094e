"""Networks: encoders of observations, recurrent cores, and the heads on top."""
