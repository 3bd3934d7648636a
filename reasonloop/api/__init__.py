"""What the names of the Python API (`reasonloop.NAME`) are, where a lower room doesn't have them as they are.

Everything here calls what runs call: the same sampler, learner, query for experts and counts. Nothing is computed twice.
"""
