output "policy_arn" {
  description = "ARN of the target-tracking policy."
  value       = aws_appautoscaling_policy.this.arn
}

output "resource_id" {
  description = "The scalable target: endpoint/NAME/variant/VARIANT."
  value       = aws_appautoscaling_target.this.resource_id
}
