output "alias_arn" {
  description = "ARN of the alias, for callers and permissions."
  value       = aws_lambda_alias.live.arn
}

output "alias_name" {
  description = "Name of the alias."
  value       = aws_lambda_alias.live.name
}

output "dead_letter_queue_arn" {
  description = "ARN of the queue that asynchronous events end in after their last retry."
  value       = aws_sqs_queue.dead_letters.arn
}

output "dead_letter_queue_name" {
  description = "Name of the dead-letter queue."
  value       = aws_sqs_queue.dead_letters.name
}

output "function_name" {
  description = "Name of the function."
  value       = aws_lambda_function.this.function_name
}

output "log_group_name" {
  description = "Name of the function's log group."
  value       = aws_cloudwatch_log_group.this.name
}

output "version" {
  description = "The published version that the alias names."
  value       = aws_lambda_function.this.version
}
