"""What a search varies, on a laptop and on SageMaker alike."""

LEARNING_RATES = (1e-4, 1e-2)  # on a logarithmic scale
BATCH_SIZES = (16, 32, 64)
HIDDEN_UNITS = (0, 128, 512)  # of the head; 0 is a linear head
