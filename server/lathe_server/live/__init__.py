"""The live page: what cameras show and variants do now, for a browser on the same machine. Off by default."""
