"""The Open Inference Protocol, version 2: Lathe for the clients of Triton, KServe and MLServer."""
