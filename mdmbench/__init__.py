"""mdmbench: what a sampler of a masked diffusion model saves, and what it costs."""

__version__ = "0.1.0"
