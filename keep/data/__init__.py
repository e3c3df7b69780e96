"""Video input and output, datasets of clips, the stateless sampler, and the tools of ``keep-data``."""
