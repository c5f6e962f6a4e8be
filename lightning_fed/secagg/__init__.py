"""SecAgg+ (Bell et al., CCS 2020; Bonawitz et al., CCS 2017): the sum of the parties and nothing else.

NumPy and `cryptography` only, and nothing else of this package: usable alone. A party is called a hospital.
"""
