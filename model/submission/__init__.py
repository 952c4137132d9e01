"""What submit.py does: upload pictures and features, write a job's request, follow the job, publish its result."""
