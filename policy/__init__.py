"""What to run next for an image, and what that costs: graphs, answers, rules, fitting.

Pure NumPy, pyarrow and scikit-learn. This package never imports Beam, torch or a cloud client, so
that a policy can be fitted, read and replayed anywhere.
"""
