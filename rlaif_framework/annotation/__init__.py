"""People compare responses on a local web page, and their labels are measured and exported.

May import `report` and below. Only `server` and `serving` need the packages of the extra `annotate`.
"""
