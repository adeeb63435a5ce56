"""Numbers computed from records alone: agreement, calibration, win rates. May import `assembly` and below; no torch.

Every rate and mean gets its confidence interval in `estimates`.
"""
