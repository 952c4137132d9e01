"""What a search varies, on a laptop and on SageMaker alike: flags of train.py."""

LEARNING_RATES = (1e-4, 1e-2)  # on a logarithmic scale
BATCH_SIZES = (16, 32, 64, 128, 256)  # of features
WHOLE_NETWORK_BATCH_SIZES = (8, 16, 32, 64)  # of pictures, whose activations have to fit into memory
HIDDEN_UNITS = (0, 128, 512)  # of the head; 0 is a linear head
