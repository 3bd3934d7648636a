"""ReasonLoop: RLoop and vanilla RL on verifiable problems, from problems to a better model."""

__version__ = "0.1.0"
