"""Rewards beside right and wrong: each [rewards.NAME] of recipe.toml adds weight x function(problem, response)."""

from reasonloop.records import Problem


def comes_to_an_answer(problem: Problem, response: str) -> float:
    """1 for a response that ends in one answer, right or wrong; 0 for one that never gets there."""
    return float(response.count("answer") == 1)
