"""The offline stage: makes variants of a model and says what each keeps of the quality and what it costs.

Only the modules that train or export import torch; evaluation and latency do not.
"""
