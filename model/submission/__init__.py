"""What submit.py does: upload a data folder, follow a SageMaker job, publish its result."""
