"""The article's outlook: attacks, federated learning, quantization, explanations."""
