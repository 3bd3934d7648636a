"""The methods, each a file that reads from top to bottom. Free of torch."""

from reasonloop.methods.method import METHODS, Method, checked_method, method, plan

__all__ = ["METHODS", "Method", "checked_method", "method", "plan"]
