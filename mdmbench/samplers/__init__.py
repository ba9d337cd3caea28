"""The rules by name. A new one: a frozen dataclass in a file here, and its line in this dict."""

from mdmbench.samplers.budget import EB
from mdmbench.samplers.ranked import LeftToRight, Random, TopK
from mdmbench.samplers.threshold import EntropyThreshold, Factor, Threshold

SAMPLERS = {
    "random": Random,
    "left-to-right": LeftToRight,
    "topk": TopK,
    "threshold": Threshold,
    "entropy-threshold": EntropyThreshold,
    "factor": Factor,
    "eb": EB,
}
