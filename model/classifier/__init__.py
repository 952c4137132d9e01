"""A picture classifier: data, network, training, archive and release, each in a module of its own."""
